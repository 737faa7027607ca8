"""What a session keeps of each thread → the C of its table, and of what a hook does with the entry of its thread.

Input: the layout of the values, by the number that the session gave them, and actions that set some of them. Output:
declarations and statements for `program` and `statements`.

A hook looks its entry up once. `v0` is the entry, or 0 where the thread has none. `r0` is for reading: where there is
no entry, it leads to one of zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usdtkit.bpf.layout import Layout

if TYPE_CHECKING:
    from usdtkit.bpf.actions import Assign
    from usdtkit.bpf.render import Renderer

THREADS, MOST_BYTES = 10_240, 8 << 20


def values_name(number: int) -> str:
    """The name of the table."""
    return f"values_{number}"


def declarations(number: int, layout: Layout) -> list[str]:
    """The struct of the values, an entry of zeros, and the table."""
    name = values_name(number)
    entries = max(1024, min(THREADS, MOST_BYTES // layout.size))
    return [
        layout.c_struct(name),
        f"BPF_ARRAY(blank_{name}, struct {name}, 1);",
        # To allocate all of them in advance would take as long as loading the programs.
        f'BPF_F_TABLE("hash", u32, struct {name}, {name}, {entries}, BPF_F_NO_PREALLOC);',
    ]


def look_up(number: int) -> list[str]:
    """Statements of a hook that declare `v` and `r`."""
    name = values_name(number)
    return [
        f"u32 first{number} = 0, thread{number} = id;",
        f"struct {name} *blank{number} = blank_{name}.lookup(&first{number});",
        f"if (!blank{number}) return 0;",
        f"struct {name} *v{number} = {name}.lookup(&thread{number}), *r{number} = blank{number};",
        f"if (v{number}) r{number} = v{number};",
    ]


def assign(action: Assign, renderer: Renderer, full: str) -> list[str]:
    """Statements that set values of the thread, and make its entry where there is none; `full` counts where there is no
    room for it."""
    number, fields = action.number, action.layout.fields
    name, v = values_name(number), f"v{number}"
    renderer.access.threads.add(number)
    computed, stores = [], []
    for index, value in action.values.items():
        if fields[index].is_text:
            stores += renderer.store(value, f"{v}->f{index}", fields[index].capacity)
        else:
            # All numbers are computed from what the entry held before.
            computed.append(f"u64 a{index} = {renderer.integer(value)[0]};")
            stores.append(f"{v}->f{index} = a{index};")
    return [
        *("{", *computed),
        f"if (!{v}) {{ {name}.update(&thread{number}, blank{number}); {v} = {name}.lookup(&thread{number}); }}",
        f"if (!{v}) {{ {full} }} else {{",
        *(f"r{number} = {v};", *stores),
        "} }",
    ]


def forget(number: int) -> str:
    """The statement that removes the entry of a thread that has ended, `thread`."""
    return f"{values_name(number)}.delete(&thread);"
