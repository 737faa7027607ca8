"""What PostgreSQL's backends wait for: locks on tables, rows and transactions, and the server's lightweight locks.

Input: a session. Output: pairs from the start of a wait to its end, and classes that make rows of them. The names of
numbers are those of lock.h, lockdefs.h and lwlock.h since PostgreSQL 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from usdtkit.providers.postgresql.backends import Program, Statements, programs
from usdtkit.trace import Expression, Pair, Session, Sources, cstr, tid, usdt

LOCK_TYPES = (
    *("relation", "extend", "frozenid", "page", "tuple", "transactionid", "virtualxid", "spectoken", "object"),
    *("userlock", "advisory", "applytransaction"),
)
LOCK_MODES = (
    *("none", "AccessShare", "RowShare", "RowExclusive", "ShareUpdateExclusive", "Share", "ShareRowExclusive"),
    *("Exclusive", "AccessExclusive"),
)
LWLOCK_MODES = ("exclusive", "shared", "until free")
_TAGS = ("tag1", "tag2", "tag3", "tag4")


def lock_waits(session: Session, program: Program = None) -> Sources[Pair]:
    """Waits for heavyweight locks: `tag_type`, `tag1` to `tag4` and `mode` say for which lock.

    A wait that an error ends (a deadlock, a timeout) has no end, and is counted as abandoned. Raises NotFoundError if
    there is no server, or one without the probes; UsageError for the process of a postmaster.
    """
    return _waits(session, programs(session, program), "lock")


def lwlock_waits(session: Session, program: Program = None) -> Sources[Pair]:
    """Waits for the lightweight locks that protect the server's memory, with `tranche` and `mode`.

    Raises the errors of `lock_waits`.
    """
    return _waits(session, programs(session, program), "lwlock")


class LockWaits:
    """Rows of waits for heavyweight locks, each with the statement that waits.

    `condition` chooses among the waits, such as `latency >= ms(100)`. Statements are shown without their literals, or
    with `raw` as they were sent. Raises the errors of `lock_waits`.
    """

    def __init__(
        self, session: Session, program: Program = None, *, condition: Expression | None = None, raw: bool = False
    ) -> None:
        files = programs(session, program)
        waits = _waits(session, files, "lock")
        self._statements = Statements(session, files, raw=raw)
        (waits if condition is None else waits.where(condition)).emit("latency", *_TAGS, "tag_type", "mode")

    def describe(self, event: Any) -> dict[str, Any] | None:
        """The row of a wait that is over; None for an event that only reports the statement of a backend.

        `lock` and `mode` are names, `target` the four numbers of the lock, and `statement` is None if it began
        before the trace.
        """
        if self._statements.is_report(event):
            self._statements.note(event)
            return None
        row: dict[str, Any] = event._asdict()
        target = "/".join(str(row.pop(tag)) for tag in _TAGS)
        names = {"lock": _name(LOCK_TYPES, row.pop("tag_type")), "mode": _name(LOCK_MODES, event.mode)}
        return {**row, **names, "target": target, "statement": self._statements.of(event.pid)}


class LwlockWaits:
    """Waits for lightweight locks, summed up in the kernel by lock and mode.

    `condition` chooses among the waits. Raises the errors of `lock_waits`.
    """

    def __init__(self, session: Session, program: Program = None, *, condition: Expression | None = None) -> None:
        waits = lwlock_waits(session, program)
        chosen = waits if condition is None else waits.where(condition)
        self._table = chosen.hist("latency", "mode", lock=cstr("tranche", 64))

    def flush(self) -> list[dict[str, Any]]:
        """A row for each lock and mode since the last call, beginning with the one with the most time in all.

        `count` waits took `total_ns`; 99 % of them took no longer than `p99_ns`, within 1/32.
        """
        waited = [item for item in self._table.delta().items() if item[1].count]
        waited.sort(key=lambda item: -item[1].sum)
        return [
            {
                **{"count": times.count, "total_ns": times.sum, "p99_ns": times.percentile(99)},
                **{"mode": _name(LWLOCK_MODES, mode), "lock": lock},
            }
            for (mode, lock), times in waited
        ]


def _waits(session: Session, files: Sequence[str], kind: str) -> Sources[Pair]:
    # A backend waits for one lock at a time, so that a wait which an error ended is replaced by the next one.
    ends = [[usdt(f"postgresql:{kind}__wait__{end}", path) for end in ("start", "done")] for path in files]
    return Sources(*(session.pair(start, done, key=tid) for start, done in ends))


def _name(names: tuple[str, ...], number: int) -> str:
    """The name of a number; the number itself if the server is newer than the names."""
    return names[number] if 0 <= number < len(names) else str(number)
