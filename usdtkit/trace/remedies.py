"""The account of a session → what to do about each kind of hit that was not followed, a sentence each.

Input: a `Summary`. Output: lines for whoever reads it. The way in which that person asks for larger tables is an
argument, because the command line has an option where Python has a parameter.
"""

from __future__ import annotations

from usdtkit.trace.plan import Summary


def remedies(summary: Summary, larger: str) -> list[str]:
    """What would help where tables were full, or stacks are missing; `larger` spells how tables get more room."""
    lines = []
    if summary.full:
        were = "was" if summary.full == 1 else "were"
        lines.append(
            f"{_hits(summary.full)} {were} not followed because a table was full: {larger} gives the tables more room"
        )
    if summary.overflow:
        lines.append(
            f"{summary.overflow:,} starts were abandoned because too many were open in one thread: those that never "
            "end, or a recursion that is deeper than what is followed; nesting=N of Session.pair allows more"
        )
    if summary.no_stack:
        lines.append(
            f"no stack was taken of {_hits(summary.no_stack)}: {larger} helps where there were more than 32,768 "
            "different ones; more than 2,700 new ones at once have no room, nor have those of 32-bit processes"
        )
    return lines


def _hits(number: int) -> str:
    return f"{number:,} hit" if number == 1 else f"{number:,} hits"
