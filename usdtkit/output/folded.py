"""Stacks → folded lines, which flame graph tools and speedscope read: `outermost;…;innermost COUNT`.

Input: `trace.Stack`s, or labels of any kind. Output: one line each, safe on a terminal. Names are somebody else's: in
them `;`, which separates frames, becomes `:`, and a newline the visible escape of `text.printable`.
"""

from __future__ import annotations

from collections.abc import Iterable

from usdtkit.output import demangled
from usdtkit.output.text import printable
from usdtkit.trace import Frame, Stack

NO_STACK = "[no stack]"


def line(labels: Iterable[str], count: int) -> str:
    """One folded line; `labels` outermost first."""
    return f"{joined(labels) or NO_STACK} {count}"


def joined(labels: Iterable[str]) -> str:
    """Labels as a stack in one line, outermost first as they are."""
    return ";".join(map(fold, labels))


def cell(labels: Iterable[str], format: str) -> list[str] | str:
    """Labels, innermost first, as a row has them: a list, in CSV a folded line."""
    shown = list(map(printable, labels))
    return joined(reversed(shown)) if format == "csv" else shown


def fold(label: str) -> str:
    """A frame as a part of a folded line."""
    return printable(label).replace(";", ":")


def learn(stacks: Iterable[Stack | None]) -> None:
    """Demangle the names of many stacks at once: of each by itself, as `labels` does, takes a process each."""
    demangled.learn(frame.name for stack in stacks if stack is not None for frame in stack)


def labels(stack: Stack | None, *, offsets: bool = False, addresses: bool = False) -> tuple[str, ...]:
    """The frames of a stack as text, innermost first; (NO_STACK,) where none was taken."""
    if stack is None or not len(stack):
        return (NO_STACK,)
    learn([stack])
    return tuple(label(frame, offsets=offsets, addresses=addresses) for frame in stack)


def below(text: str, stack: Stack | None, *, addresses: bool = False) -> str:
    """A line of a table with the frames of a stack on lines of their own."""
    return "\n        ".join([text, *shown(stack, offsets=True, addresses=addresses)])


def shown(stack: Stack | None, *, offsets: bool = False, addresses: bool = False) -> list[str]:
    """The labels of a stack, innermost first, safe to print."""
    return [printable(label) for label in labels(stack, offsets=offsets, addresses=addresses)]


def label(frame: Frame, *, offsets: bool = False, addresses: bool = False) -> str:
    """A frame's label; with the offset in its function, with its address before it."""
    name = demangled.plain(frame.name)
    text = f"{name}+{frame.offset:#x}" if offsets and name else name or frame.label
    return f"{frame.address:#018x} {text}" if addresses else text
