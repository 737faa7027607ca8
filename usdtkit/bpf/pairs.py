"""How a start and its end find each other → statements of their hooks, and the programs that clear up after threads.

Input: the two hooks of a pair, from `program`. Output: C that stores what the start keeps and that finds it again at
the end, for `program`, which appends the actions.

A call of a function and its return meet by their stack frame ("frame"): see `calls`.

Other starts and ends meet by thread ("nesting"): each thread has a stack of open starts, which are told apart by their
depth alone. When a thread ends or calls exec, a program in the kernel drops what it had open at that moment, so that a
thread that gets its number later finds nothing.

With a key ("key"), a start waits for the end with the same value in the same process, in whatever thread. Keys cannot
be enumerated when a process ends. So each carries the moment at which its process was first seen, which no later
process matches, and the table drops the entry that was unused for longest when it needs room.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.bpf import calls
from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Fill
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.render import Renderer
from usdtkit.bpf.statements import Counter
from usdtkit.errors import UsageError
from usdtkit.model import Tracepoint
from usdtkit.records import dataclass, field

Matching = Literal["frame", "nesting", "key"]
# Entries of pairs that meet by key are allocated in advance; on older kernels, those of all pairs are.
PAIR_ENTRIES, PAIR_BYTES = 10_240, 4 << 20
KEY_ENTRIES, KEY_BYTES = 65_536, 8 << 20
PROCESSES = 4096
NESTING, MOST_NESTING = 32, PAIR_ENTRIES
FEW_NESTED, MOST_DROPPED = 64, 1024  # at the end of a thread, by how deep its probes may nest
TRACEPOINTS = (
    ("thread_ends", Tracepoint("sched", "sched_process_exit")),
    ("thread_execs", Tracepoint("sched", "sched_process_exec")),
)

HEADERS: dict[Matching, tuple[tuple[str, str], ...]] = {
    "frame": calls.CALL_HEADER,
    "nesting": (("start", "u64"),),
    "key": (("start", "u64"),),
}


@dataclass
class Pairs:
    """The pairs of a program: declarations, layouts of what they keep by number, and what the end of a thread does."""

    declarations: list[str] = field(default_factory=list)
    kept: dict[int, Layout] = field(default_factory=dict)
    keys: dict[int, tuple[Matching, ex.Expression | None]] = field(default_factory=dict)
    at_thread_end: list[str] = field(default_factory=list)
    at_process_end: list[str] = field(default_factory=list)
    at_exec: list[str] = field(default_factory=list)

    def start(
        self,
        number: int,
        matching: Matching,
        keep: dict[str, ex.Expression],
        key: ex.Expression | None,
        nesting: int,
        renderer: Renderer,
        count: Counter,
        *,
        is_filled: bool = False,
    ) -> list[str]:
        """Statements for the start of a pair. After them, `s` points to the values that the pair keeps.

        `is_filled`: some of them come later, by `fill`.
        """
        fields = [renderer.field(name, expression) for name, expression in keep.items()]
        layout = self.kept[number] = Layout(fields, HEADERS[matching])
        self.keys[number] = matching, key
        self._declare(number, matching, layout, FEW_NESTED if nesting <= FEW_NESTED else MOST_DROPPED, renderer, count)
        renderer.access.uses |= {"id", "cookie"}
        stores: list[str] = []
        for index, (expression, kept) in enumerate(zip(keep.values(), layout.fields, strict=True)):
            stores += renderer.store(expression, f"s->f{index}", kept.capacity, kept.optional)
        if matching == "frame":
            if is_filled:
                self.declarations.append(
                    f'BPF_TABLE("lru_hash", u32, struct call_key, innermost_{number}, {PAIR_ENTRIES});'
                )
            return calls.enter(number, layout, stores, renderer.access, count, is_filled=is_filled)
        renderer.access.uses.add("now")
        if key is not None:
            opening = self._start_by_key(number, renderer.integer(key)[0], count)
        else:
            opening = self._start_by_depth(number, renderer.access.parameter(nesting), count)
        name = f"pair_{number}"
        return [
            *opening,
            f"struct {name} *s = 0;",
            *calls.insert_blank(number, count),
            *stores,
            "s->start = bpf_ktime_get_ns();",
        ]

    def end(
        self, number: int, matching: Matching, key: ex.Expression | None, renderer: Renderer, count: Counter
    ) -> tuple[list[str], list[str]]:
        """Statements that find what the start kept, as `s`, and `latency`; and the statements that follow all
        actions."""
        renderer.access.uses |= {"id", "cookie", "now"}
        unmatched = f"{{ {count('unmatched')} return 0; }}"
        closing = [f"pair_{number}.delete(&key);"]
        if matching == "frame":
            opening = calls.leave(number, renderer.access, count)
        elif key is not None:
            opening = [
                *_key_of_process(renderer.integer(key)[0]),
                f"struct process *p = processes_{number}.lookup(&process);",
                f"if (!p) {unmatched}",
                "key.since = p->since;",
                f"struct pair_{number} *s = pair_{number}.lookup(&key);",
                f"if (!s) {unmatched}",
            ]
            closing = [f"if (!pair_{number}.delete(&key)) __sync_fetch_and_add(&p->open, -1);"]
        else:
            opening = [
                f"u32 thread = id, *depth = (u32 *)threads_{number}.lookup(&thread);",
                f"if (!depth || !*depth) {unmatched}",
                "*depth -= 1;",
                "struct pair_key key = { .thread = thread, .depth = *depth };",
                f"if (!*depth && !depth[1]) threads_{number}.delete(&thread);",
                f"struct pair_{number} *s = pair_{number}.lookup(&key);",
                f"if (!s) {unmatched}",
            ]
        return [*opening, "u64 latency = now - s->start;"], closing

    def fill(self, action: Fill, renderer: Renderer) -> list[str]:
        """Statements that keep texts in the innermost open pair of this thread, or key, where it has none yet, or empty
        ones."""
        number, layout = action.start, self.kept[action.start]
        lines: list[str] = []
        for name, value in action.values.items():
            index = next(index for index, kept in enumerate(layout.fields) if kept.name == name)
            into, kept = f"open->f{index}", layout.fields[index]
            found = renderer.field(name, value)
            if not kept.is_text or (found.kind, found.size) != (kept.kind, kept.size):
                raise UsageError(
                    f"{renderer.access.scope.what}: {name!r} is not what the pair keeps under this name",
                    hint="only texts can be filled, with the function and size that keep= had",
                )
            nothing = int(kept.kind == "str")  # the length of a string counts its NUL
            lines += [f"if ({into}_length <= {nothing}) {{", *renderer.store(value, into, kept.capacity), "}"]
        return ["{", *self._open(number, renderer), "if (open) {", *lines, "} }"]

    def _open(self, number: int, renderer: Renderer) -> list[str]:
        """Statements that find the innermost open pair, as `open`."""
        matching, key = self.keys[number]
        if matching == "frame":
            return calls.innermost(number, renderer.access)
        renderer.access.uses.add("id")
        if key is not None:
            return [
                *_key_of_process(renderer.integer(key)[0]),
                f"struct process *p = processes_{number}.lookup(&process);",
                "if (p) key.since = p->since;",
                f"struct pair_{number} *open = pair_{number}.lookup(&key);",
            ]
        return [
            f"u32 thread = id, *depth = (u32 *)threads_{number}.lookup(&thread);",
            "struct pair_key key = { .thread = thread };",
            "if (depth) key.depth = *depth - 1;",
            f"struct pair_{number} *open = pair_{number}.lookup(&key);",
        ]

    def functions(self) -> list[str]:
        """The text of the programs of TRACEPOINTS."""
        thread, process = self.at_thread_end, self.at_process_end
        return [
            "\n".join(
                [
                    "int thread_ends(struct bpf_raw_tracepoint_args *ctx) {",
                    "u64 id = bpf_get_current_pid_tgid();",
                    "u32 thread = id, process = id >> 32;",
                    *thread,
                    *(["if (thread == process) {", *process, "}"] if process else []),
                    *("return 0;", "}"),
                ]
            ),
            # The thread that calls exec goes on under the number of the process's first thread, which has ended by
            # then.
            "\n".join(
                [
                    "int thread_execs(struct bpf_raw_tracepoint_args *ctx) {",
                    "u32 thread = ctx->args[1], process = bpf_get_current_pid_tgid() >> 32;",
                    *thread,
                    *process,
                    *self.at_exec,
                    *("return 0;", "}"),
                ]
            ),
        ]

    def _declare(
        self, number: int, matching: Matching, layout: Layout, most: int, renderer: Renderer, count: Counter
    ) -> None:
        name = f"pair_{number}"
        self.declarations.append(layout.c_struct(name))
        if matching != "frame" or not calls.fits_stack(layout):
            self.declarations.append(f"BPF_ARRAY(blank_{number}, struct {name}, 1);")
        if matching == "key":
            entries = max(1024, min(KEY_ENTRIES, KEY_BYTES // layout.size))
            self.declarations += [
                f'BPF_TABLE("lru_hash", struct process_key, struct {name}, {name}, {entries});',
                f'BPF_TABLE("lru_hash", u32, struct process, processes_{number}, {PROCESSES});',
            ]
            self.at_process_end += [
                f"{{ struct process *p = processes_{number}.lookup(&process);",
                f"if (p) {{ if (p->open > 0) {_of(number, count('abandoned', 'p->open'))}",
                f"processes_{number}.delete(&process); }} }}",
            ]
            return
        entries = max(64, min(PAIR_ENTRIES, PAIR_BYTES // layout.size))
        if matching == "frame":
            key = calls.call_key_type(renderer.access)
            self.declarations.append(f'BPF_TABLE("lru_hash", {key}, struct {name}, {name}, {entries});')
            return
        self.declarations += [
            _hash(name, "struct pair_key", f"struct {name}", entries),
            # How many starts are open in a thread and, where there were too many once, how many there were.
            _hash(f"threads_{number}", "u32", "u64", PAIR_ENTRIES),
        ]
        self.at_thread_end += [
            f"{{ volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread); if (depth) {{",
            "struct pair_key key = { .thread = thread }; u64 dropped = *depth;",
            # The depth is not held in a register and nothing branches on what is dropped, because the verifier would
            # then follow each value.
            f"for (u32 i = 0; i < {most} && i < (*depth | depth[1]); i++) {{",
            f"key.depth = i; dropped += (s64){name}.delete(&key) >> 63 & (s64)((u64)i - *depth) >> 63; }}",
            f"{_of(number, count('abandoned', 'dropped'))} threads_{number}.delete(&thread); }} }}",
        ]

    def _start_by_depth(self, number: int, most: str, count: Counter) -> list[str]:
        return [
            *_thread(number, count),
            # A start that is too deep begins a new stack, so that starts that never end do not hide all later ones.
            f"if (*depth >= {most}) {{ {count('overflow', '*depth')} depth[1] = *depth; *depth = 0; }}",
            "struct pair_key key = { .thread = thread, .depth = *depth };",
            "*depth += 1;",  # also where the start is not stored: its end must not take the start before it
        ]

    def _start_by_key(self, number: int, value: str, count: Counter) -> list[str]:
        return [
            *_key_of_process(value),
            f"struct process *p = processes_{number}.lookup(&process), first = {{ .since = now }};",
            f"if (!p) {{ processes_{number}.insert(&process, &first); p = processes_{number}.lookup(&process); }}",
            f"if (!p) {{ {count('full')} return 0; }}",
            "key.since = p->since;",
            f"if (pair_{number}.lookup(&key)) {{ {count('abandoned')} }} else __sync_fetch_and_add(&p->open, 1);",
        ]


def _hash(name: str, key: str, value: str, entries: int) -> str:
    # To allocate all of them in advance would take as long as loading the programs.
    return f'BPF_F_TABLE("hash", {key}, {value}, {name}, {entries}, BPF_F_NO_PREALLOC);'


def _of(hook: int, statement: str) -> str:
    """A statement that counts for a hook, in a program that is not that hook's."""
    return f"{{ u32 hook = {hook}; struct counters *counters = stats.lookup(&hook); if (counters) {statement} }}"


def _thread(number: int, count: Counter) -> list[str]:
    return [
        f"u64 none = 0; u32 thread = id; volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread);",
        f"if (!depth) {{ threads_{number}.insert(&thread, &none); depth = (u32 *)threads_{number}.lookup(&thread); }}",
        f"if (!depth) {{ {count('full')} return 0; }}",
    ]


def _key_of_process(value: str) -> list[str]:
    return ["u32 process = id >> 32;", f"struct process_key key = {{ .process = process, .value = {value} }};"]
