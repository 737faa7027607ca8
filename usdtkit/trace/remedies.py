"""The account of a session → a sentence for each kind of hit that was not followed, which says what to do about it.

Input: a `Summary`. Output: lines for people, which `Session.advice` returns.
"""

from __future__ import annotations

from usdtkit.trace.plan import Summary


def remedies(summary: Summary, larger: str) -> list[str]:
    """What helps where tables were full or stacks are missing.

    `larger` is how the reader asks for larger tables: by an option of the command line, or a parameter in Python.
    """
    lines = []
    if summary.full:
        were = "was" if summary.full == 1 else "were"
        lines.append(
            f"{_hits(summary.full)} {were} not followed because a table was full: {larger} makes the tables larger"
        )
    if summary.overflow:
        lines.append(
            f"{summary.overflow:,} starts were abandoned because too many were open in one thread: those that never "
            "end, or a recursion that is too deep to follow; nesting=N of Session.pair allows more"
        )
    if summary.no_stack:
        lines.append(
            f"{_hits(summary.no_stack)} have no stack: {larger} helps if there were more than 32,768 "
            "different stacks, but not with more than 1,600 new ones at once, or with 32-bit processes"
        )
    return lines


def _hits(number: int) -> str:
    return f"{number:,} hit" if number == 1 else f"{number:,} hits"
