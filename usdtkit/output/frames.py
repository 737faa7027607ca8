"""Stacks → the labels of their frames, and their frames as objects for programs.

Input: a `usdtkit.trace.Stack`, `usdtkit.results.Calls`, or None. Output: labels, innermost first, with the names of
functions as their programmers wrote them, or dictionaries with the values of `columns.FRAME`. Names come from traced
programs, so a caller must make a label printable before printing it.

The label of a Python function ends in its file and line, `Shop.order (shop.py:41)`, and so is told from a native one
without colours or marks, also in folded lines and in what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from usdtkit.output import demangled
from usdtkit.output.text import printable
from usdtkit.results.blocks import Calls
from usdtkit.results.columns import FRAME, Column

if TYPE_CHECKING:
    from usdtkit.trace import Frame, Stack

NO_STACK = "[no stack]"


def learn(stacks: Iterable[Stack | Calls | None]) -> None:
    """Demangle the names of many stacks at once, because demangling those of one stack takes a process of its own."""
    demangled.learn(frame.name for stack in stacks if stack is not None for frame in stack.frames)


def labels(stack: Stack | Calls | None, *, offsets: bool = False, addresses: bool = False) -> tuple[str, ...]:
    """The frames of a stack as text, innermost first; (NO_STACK,) if no stack was taken.

    If it is known that outer frames are missing, the last label says why.
    """
    if stack is None:
        return (NO_STACK,)
    learn([stack])
    cut = (f"[cut: {stack.end}]",) if stack.end else ()
    return (*(label(frame, offsets=offsets, addresses=addresses) for frame in stack.frames), *cut)


def of_column(column: Column, stack: Stack | Calls | None, *, in_table: bool = False) -> list[str]:
    """The labels of a stack as a column shows them in a table, or in other formats, safe to print."""
    offsets = column.offsets == "all" or (in_table and column.offsets == "table")
    return [printable(text) for text in labels(stack, offsets=offsets, addresses=column.addresses)]


def label(frame: Frame, *, offsets: bool = False, addresses: bool = False) -> str:
    """A frame's label; `offsets` adds the offset in its function, and the line of the source where that is known;
    `addresses` puts its address in front."""
    name = demangled.plain(frame.name)
    text = frame.label if name == frame.name else name
    if offsets and name and frame.offset is not None:
        text = f"{name}+{frame.offset:#x}" + (f" ({frame.source})" if frame.source else "")
    return f"{f'{frame.address:#018x}' if frame.address else '':18} {text}" if addresses else text


def objects(column: Column, stack: Stack | Calls | None) -> list[dict[str, Any]] | None:
    """The frames of a stack for programs, innermost first; None if no stack was taken. What is not known is None."""
    if stack is None:
        return None
    learn([stack])
    names = [field.name for field in FRAME if column.addresses or field.name != "address"]
    return [{name: _plain(getattr(frame, name)) for name in names} for frame in stack.frames]


def common(stacks: Iterable[Stack | None]) -> Calls | None:
    """Stacks with the same labels as one: of each frame, what it has in all of them. None if none was taken."""
    taken = [stack for stack in stacks if stack is not None]
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
