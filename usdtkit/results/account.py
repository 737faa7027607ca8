"""The account of a session, which says what became of every hit: a line for people, and columns for programs.

Input: `trace.Summary`. Output: the columns of a summary object, and one line of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from usdtkit.records import asdict, dataclass, replace
from usdtkit.results.columns import Column

if TYPE_CHECKING:
    from usdtkit.trace import Summary

SUMMARY = (
    Column("hits", type="count", meaning="hits that reached a hook; of pairs, those that were completed"),
    Column("received", type="count", meaning="events that arrived"),
    Column("lost", type="count", meaning="events for which the ring buffer had no space"),
    Column("full", type="count", meaning="entries that a full table did not take"),
    Column("unmatched", type="count", meaning="ends without a start"),
    Column("overflow", type="count", meaning="starts that were given up because too many were open in one thread"),
    Column(
        "abandoned",
        type="count",
        meaning="starts whose end cannot come any more: the thread or process has ended, the call was left without a "
        "return, or the key has started again",
    ),
    Column("unreadable", type="count", meaning="values that could not be read"),
    Column("no_stack", type="count", meaning="hits of which no stack could be taken"),
    Column("stacks", type="count", meaning="different stacks that were taken"),
    Column(
        "cut_stacks",
        type="list",
        meaning="those of them that are known to lack their outer calls",
        fields=(Column("why", meaning="where they end"), Column("count", type="count", meaning="how many there were")),
    ),
    Column("untabled", type="count", meaning="files without room for their tables of call frames (--unwind-memory)"),
    Column("open", type="count", meaning="calls of functions that had neither returned nor been seen to be left"),
    Column(
        "rejected", type="count", meaning="calls of probes that usdtkit did not fire, because their values did not fit"
    ),
    Column("files", type="count", meaning="files from which hits came"),
    Column("processes", type="count", meaning="processes from which hits came"),
    Column(
        "unlooked",
        type="count",
        meaning="files and processes that started meanwhile and could not be looked at; standard error says why",
    ),
    Column(
        "unarmed",
        type="count",
        meaning="processes that run what is traced but have no breakpoints there; standard error has each reason",
    ),
    Column(
        "command_status",
        type="integer",
        nullable=True,
        meaning="how the command of -c ended by itself: its exit status, or the negative number of the signal",
    ),
    Column(
        "unseen",
        type="list",
        meaning="what there was that the trace does not show",
        fields=(
            Column("what", meaning="one of them, as a noun"),
            Column("why", meaning="why they are not shown"),
            Column("count", type="count", meaning="how many there were"),
        ),
    ),
    Column("duration_s", type="number", meaning="how long the trace took, in seconds"),
)
_SHOWN = {
    "full": "not counted, table full",
    "unmatched": "ends without a start",
    "overflow": "abandoned, nested too deep",
    "abandoned": "starts without an end",
    "unreadable": "arguments unreadable",
    "no_stack": "stacks not taken",
    "untabled": "files without room for tables of call frames",
    "rejected": "calls not fired, values do not fit",
    "unlooked": "files or processes not looked at",
    "unarmed": "processes not armed",
}


@dataclass(frozen=True)
class Account:
    """The account of a session: its `summary`, and the reasons why nothing came, if nothing did.

    `unexplained_ends` are the ends without a start that tell the reader something; None means all of them. `in_kernel`:
    the hits were summed up there, and no events were sent.
    """

    summary: Summary
    reasons: Sequence[str] = ()
    unexplained_ends: int | None = None
    in_kernel: bool = False

    def line(self) -> str:
        """The account for a person, in one line."""
        summary = self.summary
        if self.unexplained_ends is not None:
            summary = replace(summary, unmatched=self.unexplained_ends)
        if not self.reasons:
            return account(summary, in_kernel=self.in_kernel)
        # The reasons name the processes that the account would only count.
        line = account(replace(summary, unarmed=0), in_kernel=self.in_kernel)
        return f"{line}: {'; '.join(self.reasons)}"

    def values(self) -> dict[str, Any]:
        """The account for programs: the values of the columns of SUMMARY."""
        summary = self.summary
        values = {column.name: getattr(summary, column.name) for column in SUMMARY}
        return values | {name: [*map(asdict, getattr(summary, name))] for name in ("cut_stacks", "unseen")}


def account(summary: Summary, *, in_kernel: bool = False) -> str:
    """One line that says what became of every hit. `in_kernel` is as `Account` has it."""
    counts = {phrase: getattr(summary, name) for name, phrase in _SHOWN.items()}
    hits = _number(summary.hits, "hit")
    if in_kernel and not summary.received:
        line = hits
    elif summary.hits and not summary.received + summary.lost:
        line = f"received 0 of {hits}"  # because of a condition, or because what was awaited did not come
    else:
        line = f"received {summary.received:,}"
    line += f", lost {summary.lost:,}{_origin(summary)}"
    line = ", ".join([line, *(f"{count:,} {phrase}" for phrase, count in counts.items() if count)])
    unseen = (f"{_number(unseen.count, unseen.what)} not shown: {unseen.why}" for unseen in summary.unseen)
    return "; ".join([line, *_cut(summary), *unseen])


def _cut(summary: Summary) -> Iterator[str]:
    """How many stacks lack their outer calls, where there are any."""
    if cut := sum(stacks.count for stacks in summary.cut_stacks):
        reasons = ", ".join(f"{stacks.count:,} at {stacks.why}" for stacks in summary.cut_stacks)
        yield f"{cut:,} of {_number(summary.stacks, 'stack')} {'is' if cut == 1 else 'are'} cut: {reasons}"


def _origin(summary: Summary) -> str:
    """From how many files and processes hits came; "" where none came."""
    if not summary.processes:
        return ""
    files = f"{_number(summary.files, 'file')} in " if summary.files else ""  # a clock is in no file
    return f", from {files}{_number(summary.processes, 'process')}"


def _number(count: int, noun: str) -> str:
    """A count with its noun, which is given in the singular: "1 query", "4,800 queries"."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy", "uy")):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}es" if noun.endswith("s") else f"{count:,} {noun}s"
