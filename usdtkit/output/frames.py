"""Stacks → the labels of their frames.

Input: a `usdtkit.trace.Stack`, None, or labels. Output: labels, innermost first, with the names of functions as their
programmers wrote them. Names come from traced programs, so a caller must make a label printable before printing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from usdtkit.output import demangled
from usdtkit.output.text import printable
from usdtkit.results.columns import Column

if TYPE_CHECKING:
    from usdtkit.trace import Frame

NO_STACK = "[no stack]"


def learn(stacks: Iterable[Any]) -> None:
    """Demangle the names of many stacks at once, because demangling those of one stack takes a process of its own."""
    from usdtkit.trace import Stack  # lazy: most traces take no stacks, and these modules would slow their start

    demangled.learn(frame.name for stack in stacks if isinstance(stack, Stack) for frame in stack)


def labels(stack: Any, *, offsets: bool = False, addresses: bool = False) -> tuple[str, ...]:
    """The frames of a stack as text, innermost first; (NO_STACK,) if no stack was taken."""
    if stack is None or not len(stack):
        return (NO_STACK,)
    from usdtkit.trace import Stack

    if not isinstance(stack, Stack):
        return tuple(stack)
    learn([stack])
    return tuple(label(frame, offsets=offsets, addresses=addresses) for frame in stack)


def of_column(column: Column, stack: Any, *, in_table: bool = False) -> list[str]:
    """The labels of a stack as a column shows them in a table, or in other formats, safe to print."""
    offsets = column.offsets == "all" or (in_table and column.offsets == "table")
    return [printable(text) for text in labels(stack, offsets=offsets, addresses=column.addresses)]


def label(frame: Frame, *, offsets: bool = False, addresses: bool = False) -> str:
    """A frame's label; `offsets` adds the offset in its function, and the line of the source where that is known;
    `addresses` puts its address in front."""
    name = demangled.plain(frame.name)
    text = f"{name}+{frame.offset:#x}" if offsets and name else name or frame.label
    if offsets and frame.source:
        text += f" ({frame.source})"
    return f"{frame.address:#018x} {text}" if addresses else text


def folded(labels: Iterable[str]) -> str:
    """Labels, outermost first, as one line. A semicolon within a label becomes a colon, because it separates frames."""
    return ";".join(printable(text).replace(";", ":") for text in labels)
