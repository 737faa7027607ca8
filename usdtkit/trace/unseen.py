"""What a session cannot show, and therefore counts: how many there were, of what, and why.

Input: counters, each with its words; they count in the kernel (`Source.count_unseen`) or wherever events are described
(`Session.count_unseen`). Output: `Unseen`s, which the `Summary` holds and the last line of a trace says.
`stacks` counts what is missing of stacks in `CutStacks`, which are shown there too.
"""

from __future__ import annotations

from collections.abc import Callable

from usdtkit.records import dataclass


@dataclass(frozen=True, slots=True)
class Unseen:
    """How often there was something that the trace does not show.

    - `what`: one of them, as a singular noun: "prepared execution"
    - `why`: the reason, as a part of a sentence: "mariadbd has no symbol …"
    - `count`: how many there were
    """

    what: str
    why: str
    count: int


@dataclass(frozen=True, slots=True)
class CutStacks:
    """How many stacks lack their outer calls for one reason.

    - `why`: where they end, as a noun: "unreadable memory"
    - `count`: how many there were; stacks that are equal are one
    """

    why: str
    count: int


class UnseenCounts:
    """The counters of a session; those with the same words are one."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, str], list[Callable[[], int]]] = {}

    def add(self, what: str, why: str, counter: Callable[[], int]) -> None:
        """One more counter, which returns how many there were until now."""
        self._counters.setdefault((what, why), []).append(counter)

    def read(self) -> tuple[Unseen, ...]:
        """What there was until now; nothing of what did not occur."""
        counted = (
            Unseen(what, why, sum(counter() for counter in counters))
            for (what, why), counters in self._counters.items()
        )
        return tuple(unseen for unseen in counted if unseen.count)
