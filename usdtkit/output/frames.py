"""Stacks → the labels of their frames, and their frames as objects for programs.

Input: a `usdtkit.trace.Stack`, `usdtkit.results.Calls`, or None. Output: labels, innermost first, with the names of
functions as their programmers wrote them, or dictionaries with the values of `columns.FRAME`. Names come from traced
programs, so a caller must make a label printable before printing it.

The label of a function of Python, PHP or Ruby ends in its file and line, `Shop.order (shop.py:41)`, and so is told from
a native one without colours or marks, also in folded lines and in what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from usdtkit.output import demangled
from usdtkit.output.text import printable
from usdtkit.results.blocks import Calls
from usdtkit.results.columns import FRAME, Column, FrameKind

if TYPE_CHECKING:
    from usdtkit.trace import Frame, Stack

NO_STACK = "[no stack]"


def learn(stacks: Iterable[Stack | Calls | None]) -> None:
    """Demangle the names of many stacks at once, because demangling those of one stack takes a process of its own."""
    demangled.learn(frame.name for stack in stacks if stack is not None for frame in stack.frames)


def of_kind(stack: Stack | Calls | None, kind: FrameKind) -> Calls | None:
    """The frames of a stack that are of a kind, and why outer ones are missing among them. "" means all frames."""
    if stack is None:
        return None
    if not kind:
        return Calls(stack.frames, stack.end)
    if isinstance(stack, Calls):
        shown = (frame for frame in stack.frames if (frame.kind not in ("native", "jit")) == (kind == "python"))
        return Calls(tuple(shown), stack.end)
    return Calls(stack.python, stack.python_end) if kind == "python" else Calls(stack.native, stack.native_end)


def labels(
    stack: Stack | Calls | None, *, offsets: bool = False, addresses: bool = False, kind: FrameKind = ""
) -> tuple[str, ...]:
    """The frames of a stack as text, innermost first; (NO_STACK,) if no stack was taken.

    With `kind`, only frames of that kind, and one label that says so where the stack has none of them. If it is known
    that outer frames are missing, the last label says why.
    """
    calls = of_kind(stack, kind)
    if calls is None:
        return (NO_STACK,)
    learn([calls])
    shown = [label(frame, offsets=offsets, addresses=addresses) for frame in calls.frames]
    none = [f"[no {kind} frames]"] if kind and not shown else []
    return (*shown, *none, *([f"[cut: {calls.end}]"] if calls.end else []))


def of_column(column: Column, stack: Stack | Calls | None, *, in_table: bool = False) -> list[str]:
    """The labels of a stack as a column shows them in a table, or in other formats, safe to print."""
    offsets = column.offsets == "all" or (in_table and column.offsets == "table")
    shown = labels(stack, offsets=offsets, addresses=column.addresses, kind=column.frames)
    return [printable(text) for text in shown]


def label(frame: Frame, *, offsets: bool = False, addresses: bool = False) -> str:
    """A frame's label; `offsets` adds the offset in its function, and the line of the source where that is known;
    `addresses` puts its address in front."""
    name = demangled.plain(frame.name)
    text = frame.label if name == frame.name else name
    if offsets and name and frame.offset is not None:
        text = f"{name}+{frame.offset:#x}" + (f" ({frame.source})" if frame.source else "")
    return f"{f'{frame.address:#018x}' if frame.address else '':18} {text}" if addresses else text


def values(frame: Frame, *, addresses: bool = False) -> dict[str, Any]:
    """The values of FRAME for programs, with names that `learn` has seen demangled. What is not known is None."""
    names = [field.name for field in FRAME if addresses or field.name != "address"]
    return {name: _plain(getattr(frame, name)) for name in names}


def common(stacks: Iterable[Stack | None], kind: FrameKind = "") -> Calls | None:
    """Stacks whose frames of a kind have the same labels as one: of each frame, what it has in all of them.

    None if no stack was taken.
    """
    taken = [calls for calls in (of_kind(stack, kind) for stack in stacks) if calls is not None]
    if not taken:
        return None
    frames = taken[0].frames
    for stack in taken[1:]:
        frames = tuple(map(_common, frames, stack.frames))
    return Calls(frames, taken[0].end)


def folded(labels: Iterable[str]) -> str:
    """Labels, outermost first, as one line. A semicolon within a label becomes a colon, because it separates frames."""
    return ";".join(printable(text).replace(";", ":") for text in labels)


def _common(one: Frame, other: Frame) -> Frame:
    if one == other:
        return one
    none = type(one)(one.kind)
    values: Iterable[Any] = (mine if mine == its else null for mine, its, null in zip(one, other, none, strict=True))
    return type(one)(*values)


def _plain(value: Any) -> Any:
    """A value of a frame for JSON."""
    return printable(demangled.plain(value)) or None if isinstance(value, str) else value
