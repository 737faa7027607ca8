"""Probes of a provider file → a program for bpftrace, or for bcc in Python, that prints each fire.

Input: probes as `usdtkit.elf` has read them. Output: text, which `usdtkit provider script` prints. The content of the
file is hostile: a name that is not plain raises UsageError, and characters that could end a literal are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from usdtkit.argumenttypes import OPERANDS
from usdtkit.errors import UsageError
from usdtkit.model import Argument, Probe

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_./+@=,~-]+", re.ASCII)
# bpftrace before 0.21 reads at most six operands.
_BPFTRACE_OPERANDS = 6
_BCC_TEXT = 128


class _Printed(NamedTuple):
    """One argument in bpftrace: its conversion in the format, and its expression."""

    conversion: str
    expression: str


def bpftrace(probes: Sequence[Probe]) -> str:
    """Return a program for bpftrace. Arguments after the sixth operand are named in comments.

    Raises UsageError.
    """
    parts = ["#!/usr/bin/env bpftrace"]
    begin: list[str] = []
    tables: list[str] = []
    bodies = []
    for probe in probes:
        _check(probe)
        shown, beyond = [], []
        for argument in probe.arguments:
            if argument.operand + argument.width > _BPFTRACE_OPERANDS:
                beyond.append(argument.name)
                continue
            table = f"@{probe.provider}_{probe.name}_{argument.name}".replace("-", "_")
            if argument.names:
                tables.append(table)
                begin += [f'\t{table}[(int64){number}] = "{_literal(name)}";' for name, number in argument.names]
            shown.append((argument, _in_bpftrace(argument, table)))
        text = " ".join(["%-7d", probe.spec, *[f"{argument.name}={printed.conversion}" for argument, printed in shown]])
        values = "".join(f", {printed.expression}" for _, printed in shown)
        lines = [f"// {_plain(probe.doc)}"] if probe.doc else []
        lines += [f"// {_explained(argument)}" for argument in probe.arguments if argument.unit or argument.doc]
        if beyond:
            lines.append(
                f"// beyond arg{_BPFTRACE_OPERANDS - 1}, which older bpftrace cannot read: {', '.join(beyond)}"
            )
        lines += [f"usdt:{probe.path}:{probe.spec}", "{", f'\tprintf("{text}\\n", pid{values});', "}"]
        bodies.append("\n".join(lines))
    if begin:
        parts.append("\n".join(["BEGIN", "{", *begin, "}"]))
    parts += bodies
    if tables:
        parts.append("\n".join(["END", "{", *[f"\tclear({table});" for table in dict.fromkeys(tables)], "}"]))
    return "\n\n".join(parts)


def _in_bpftrace(argument: Argument, table: str) -> _Printed:
    value = f"arg{argument.operand}"
    if argument.names:
        return _Printed("%s", f"{table}[(int64){value}]")
    match argument.type:
        case "str" | "json":
            return _Printed("%s", f"str({value})")
        case "text":
            return _Printed("%s", f"str({value}, arg{argument.operand + 1})")
        case "bytes":
            return _Printed("%r", f"buf({value}, arg{argument.operand + 1})")
        case "f32" | "f64":
            return _Printed("0x%lx", value)  # it has no floats: the bits
        case "i8" | "i16" | "i32" | "i64" | "enum":
            return _Printed("%ld", f"(int64){value}")
        case _:
            return _Printed("%lu", value)


_BCC = '''#!/usr/bin/python3
"""Prints {what} as they fire, until Ctrl-C. Needs bcc and root; -p PID traces one process."""

import struct
import sys

from bcc import BPF, USDT

TEXT = r"""
#include <uapi/linux/ptrace.h>
{structs}
{functions}
"""
PROBES = [
{table}
]
NAMES = {names}


def shown(kind, value, name):
    if kind == "f32":
        return struct.unpack("<f", struct.pack("<I", value & 0xffffffff))[0]
    if kind == "f64":
        return struct.unpack("<d", struct.pack("<Q", value))[0]
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace"))
    return NAMES.get(name, {{}}).get(value, value)


def printer(number, spec, arguments):
    def print_event(cpu, data, size):
        event = bpf[f"events_{{number}}"].event(data)
        values = []
        for name, kind in arguments:
            value = getattr(event, f"v_{{name}}")
            if kind in ("bytes", "text"):
                value = bytes(getattr(event, f"d_{{name}}"))[: max(0, min(value, {text}))]
            values.append(f"{{name}}={{shown(kind, value, spec + ':' + name)}}")
        print(event.pid_, spec, *values, flush=True)

    return print_event


def lost(count):
    print(f"lost {{count}} events", file=sys.stderr, flush=True)


contexts = {{}}
for number, (path, spec, arguments) in enumerate(PROBES):
    if sys.argv[1:2] == ["-p"]:
        path = None  # bcc finds the files that the process has mapped
    if path not in contexts:
        contexts[path] = USDT(path=path) if path else USDT(pid=int(sys.argv[2]))
    contexts[path].enable_probe(probe=spec, fn_name=f"on_{{number}}")
bpf = BPF(text=TEXT, usdt_contexts=list(contexts.values()))
for number, (path, spec, arguments) in enumerate(PROBES):
    events = bpf[f"events_{{number}}"]
    events.open_perf_buffer(printer(number, spec, arguments), page_cnt=256, lost_cb=lost)
print("ready", file=sys.stderr, flush=True)
try:
    while True:
        bpf.perf_buffer_poll()
except KeyboardInterrupt:
    pass
'''


def bcc(probes: Sequence[Probe]) -> str:
    """Return a Python program for bcc. Raises UsageError."""
    structs, functions, table = [], [], []
    names = {}
    for number, probe in enumerate(probes):
        _check(probe)
        fields, reads = ["u64 pid_;"], []
        for argument in probe.arguments:
            declared, read = _in_bcc(argument)
            fields += declared
            reads += read
            if argument.names:
                names[f"{probe.spec}:{argument.name}"] = {value: _literal(name) for name, value in argument.names}
        structs.append(
            f"struct event_{number} {{ {' '.join(fields)} }};\n"
            f"BPF_PERF_OUTPUT(events_{number});\nBPF_PERCPU_ARRAY(room_{number}, struct event_{number}, 1);"
        )
        functions.append(
            "\n".join(
                [
                    f"int on_{number}(struct pt_regs *ctx) {{",
                    "    int zero = 0;",
                    f"    struct event_{number} *event = room_{number}.lookup(&zero);",
                    "    if (!event) return 0;",
                    "    __builtin_memset(event, 0, sizeof(*event));",
                    "    event->pid_ = bpf_get_current_pid_tgid() >> 32;",
                    *[f"    {line}" for line in reads],
                    f"    events_{number}.perf_submit(ctx, event, sizeof(*event));",
                    "    return 0;",
                    "}",
                ]
            )
        )
        pairs = [(argument.name, argument.type) for argument in probe.arguments]
        table.append(f"    ({probe.path!r}, {probe.spec!r}, {pairs!r}),")
    return _BCC.format(
        what=", ".join(probe.spec for probe in probes),
        structs="\n".join(structs),
        functions="\n".join(functions),
        table="\n".join(table),
        names=repr(names),
        text=_BCC_TEXT,
    ).rstrip("\n")


def _in_bcc(argument: Argument) -> tuple[list[str], list[str]]:
    """Return the fields of the struct, and the statements that fill them."""
    # Names get a prefix, because they may be keywords of C.
    name, word = f"v_{argument.name}", f"w_{argument.name}"

    def read(type: str, into: str, operand: int) -> str:
        # bcc reads an operand only into a variable of the same size.
        return f"{type} {into} = 0; bpf_usdt_readarg({operand + 1}, ctx, &{into});"

    match argument.type:
        case "str" | "json":
            return [f"char {name}[{_BCC_TEXT}];"], [
                read("u64", word, argument.operand),
                f"bpf_probe_read_user_str(event->{name}, sizeof(event->{name}), (void *){word});",
            ]
        case "bytes" | "text":
            data, length = f"d_{argument.name}", f"l_{argument.name}"
            return [f"s64 {name};", f"u8 {data}[{_BCC_TEXT}];"], [
                read("u64", word, argument.operand),
                read("u64", length, argument.operand + 1),
                f"event->{name} = {length};",
                f"if ({length} > {_BCC_TEXT}) {length} = {_BCC_TEXT};",
                f"bpf_probe_read_user(event->{data}, (u32){length}, (void *){word});",
            ]
        case type:
            size = OPERANDS.get(type, (8,))[0]
            c = f"{'s' if size < 0 else 'u'}{8 * abs(size)}"
            return [f"{c[0]}64 {name};"], [read(c, word, argument.operand), f"event->{name} = {word};"]


def _check(probe: Probe) -> None:
    for name in (probe.provider, probe.name, *[argument.name for argument in probe.arguments]):
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} in {probe.path!r} cannot be used as a name in a program")
    if not _PATH.fullmatch(probe.path):
        raise UsageError(
            f"the path {probe.path!r} cannot be written in another tracer's program",
            hint="give the file a name of letters, digits and -_./",
        )


def _plain(text: str) -> str:
    """Return the text for a comment of one line."""
    return "".join(character if character.isprintable() else " " for character in text)


def _literal(text: str) -> str:
    """Return the text for a string literal: printable ASCII, without the characters that end or escape it."""
    return "".join(
        character if character.isascii() and character.isprintable() and character not in '"\\%' else "?"
        for character in text
    )


def _explained(argument: Argument) -> str:
    return _plain(
        ", ".join(filter(None, (f"{argument.name}: {argument.declared} {argument.unit}".strip(), argument.doc)))
    )
