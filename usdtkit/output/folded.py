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
    return f"{';'.join(fold(label) for label in labels) or NO_STACK} {count}"


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


def label(frame: Frame, *, offsets: bool = False, addresses: bool = False) -> str:
    """A frame's label; with the offset in its function, with its address before it."""
    name = demangled.plain(frame.name)
    text = f"{name}+{frame.offset:#x}" if offsets and name else name or frame.label
    return f"{frame.address:#018x} {text}" if addresses else text
