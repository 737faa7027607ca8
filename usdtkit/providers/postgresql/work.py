"""What a backend of PostgreSQL does for each statement, in both protocols: from its messages to its answer.

Input: a session. Output: sources whose hits are the ends of statements, with what is known of them, for `queries`.

A statement comes in one message (the simple protocol) or in several: Parse, Bind, Execute, Sync. A backend says with
each of these which statement it is at, by the probe statement__status, and says nothing (NULL) when it is done and
waits for the next. From these reports, and from the functions that execute, prepare and read, values of the thread keep
what it is at. A statement ends where the next one is reported after it was executed (pipelines), or where the backend
is done. Between two messages it may wait for its client: that time does not count.
"""

from __future__ import annotations

from contextlib import suppress

from usdtkit.errors import NotFoundError
from usdtkit.providers.postgresql.phases import Phases
from usdtkit.providers.postgresql.versions import VERSIONS, version_of
from usdtkit.trace import Expression, FunctionSpec, Session, Source, ThreadKind, arg, cstr, deref, now, uprobe

# How far a backend has come with a statement. It may fail at NONE too: at a Bind to one that was never prepared.
NONE, BOUND, PARSED, QUERY, EXECUTED, FETCHED, FUNCTION, REPLICATION = range(8)
COMMANDS = ("bind", "bind", "prepare", "query", "execute", "fetch", "function", "replication")
"""What a client has asked for, by the numbers in events."""
# What a backend does with its connection. A COPY reads as part of its execution.
WORKS, READS, COPIES, REPLICATES = range(4)
ALL_ROWS = 2**63 - 1  # the count of PortalRun
# Offsets in a StringInfoData. While a message is composed, its cursor is the type of the message.
_LENGTH, _CURSOR = 8, 16


class Work:
    """What each backend is at, kept in the kernel.

    While it works, `base` is the moment at which it would have begun if it had never waited for the client. While it
    waits, `base` is 0, and `paused` is the time that it has worked until then. `prepared` is the address of the text of
    a named statement that it has just prepared: the Bind that follows reports the same address if it is for this
    statement.
    """

    def __init__(self, session: Session, size: int, *, steps: bool = False, phases: bool = False) -> None:
        """`size`: the bytes of the text. `steps` tells apart what prepares and what binds, if neither is executed. With
        `phases`, the time of each of them is known as well."""
        self._session, self._size, self._steps = session, size, steps
        numbers = ("base", "paused", "reading", "client", "step", "prepared", "error")
        kinds: dict[str, ThreadKind] = {**dict.fromkeys(numbers, "u64"), "query": size}
        self._values = session.thread_values(**kinds)
        self.step, self.error = self._get("step"), self._get("error")
        base = self._get("base")
        self._latency = self._get("paused") + (base != 0) * (now - base)
        self._phases = Phases(session, self._latency) if phases else None

    def follow(self, program: str) -> list[Source]:
        """Follow the backends that run a program; the ends of their statements. NotFoundError."""
        self._follow_execution(program)
        self._follow_waits(program)
        self._follow_errors(program)
        if self._phases is not None:
            self._phases.follow(program, self.step != 0)
        exits = self._session.uprobe(program, "proc_exit")
        base, paused = self._get("base"), self._get("paused")
        # Parallel workers, and those of vacuum, report what they are at too, but they have no client.
        left = exits.only((self._get("client") != 0) & (self.step != 0) & ((base | paused) != 0))
        return [self._described(self._follow_reports(program)), self._described(left)]

    def _follow_reports(self, program: str) -> Source:
        """The reports of what a backend is at, of which those that end a statement are returned."""
        base, step, prepared = self._get("base"), self.step, self._get("prepared")
        try:
            reports, text = self._session.usdt("postgresql:statement__status", program), arg("status")
        except NotFoundError:  # a build without probes
            reports, text = self._session.uprobe(program, "pgstat_report_activity"), arg(2)
        address = text.cast("u64")
        begins = address != 0
        replaced = (step >= QUERY) | ((prepared != 0) & (prepared != address))
        ends = (base != 0) & ((begins & (step != 0) & replaced) | (~begins & ((step != 0) | (self.error != 0))))
        ended = reports.only(ends)
        ended.assign(self._values, base=0)
        if self._phases is not None:
            self._phases.report(reports, goes_on=begins & (base != 0))
        reports.assign(
            self._values,
            base=begins * (base + (base == 0) * (now - base)),
            **dict.fromkeys(("paused", "reading", "prepared", "error"), 0),
            step=begins * (BOUND + (self._get("reading") == REPLICATES) * (REPLICATION - BOUND)),
            query=cstr(text, self._size),
        )
        # Whatever a backend is done with, it has read from its client: of one without values, that was earlier.
        earlier = reports.ahead().where(~begins & ~self._values.has())
        earlier.count_unseen("statement", "begun before the trace")
        return ended.ahead()

    def _follow_execution(self, program: str) -> None:
        """How far a statement comes after it was reported."""
        session, values = self._session, self._values
        is_open = (self.step != 0) & (self.step < QUERY)
        try:
            runs = session.uprobe(program, "PortalRun")  # (Portal, long count, bool isTopLevel, …)
        except NotFoundError:
            raise NotFoundError(
                f"{program} has no function PortalRun, which executes the queries of PostgreSQL",
                hint="-x takes the program of the server, such as /usr/lib/postgresql/15/bin/postgres",
            ) from None
        runs.where(is_open & (arg(3).cast("u8") != 0)).assign(values, step=(arg(2) != ALL_ROWS) + EXECUTED)
        with suppress(NotFoundError):  # builds without probes do not tell what failed before it was executed
            simple = session.usdt("postgresql:query__start", program)
            simple.where(is_open | (self.step == REPLICATION)).assign(values, step=QUERY)
            if self._steps:
                parses = session.usdt("postgresql:query__parse__start", program)
                parses.where(self.step == BOUND).assign(values, step=PARSED)
        replicates = self._optional(uprobe(program, "exec_replication_command"))
        replicates.assign(values, reading=REPLICATES)
        calls = self._optional(uprobe(program, "HandleFunctionRequest"))
        calls.assign(values, base=now, step=FUNCTION)
        if self._phases is not None:
            self._phases.execute(calls)
        self._optional(uprobe(program, "DoCopy")).where(self.step != 0).assign(values, reading=COPIES)
        if version := VERSIONS[0] if session.offline else version_of(program):
            # (const char *name, CachedPlanSource *, bool from_sql)
            prepares = self._optional(uprobe(program, "StorePreparedStatement"))
            by_message = is_open & (arg(3).cast("u8") == 0)
            prepares.where(by_message).assign(values, prepared=deref(2, version.query_string), step=PARSED)

    def _follow_waits(self, program: str) -> None:
        """When a backend waits for its client. ProcessClientReadInterrupt(bool blocked) is called before and after each
        read from the connection, and with true while a read waits."""
        base, paused, reading = self._get("base"), self._get("paused"), self._get("reading")
        around = self._optional(uprobe(program, "ProcessClientReadInterrupt"))
        # Of a backend that nothing is known of yet, a read ends: it waited when the trace began.
        is_read = (reading == READS) | ~self._values.has()
        around.where((arg(1).cast("u8") == 0) & (reading != COPIES)).assign(
            self._values,
            client=1,
            reading=~is_read * READS,
            paused=~is_read * (base != 0) * (now - base),
            base=is_read * (now - paused),
        )

    def _follow_errors(self, program: str) -> None:
        """The SQLSTATE of an error that is reported to the client: the string behind the letter C of an ErrorResponse,
        which pq_sendstring(StringInfo, const char *) appends."""
        sends = self._optional(uprobe(program, "pq_sendstring"))
        is_error = deref(1, _CURSOR, "i32") == ord("E")
        is_state = deref(deref(1) + deref(1, _LENGTH, "i32") - 1, 0, "u8") == ord("C")
        state = deref(2) & (2**40 - 1)  # five characters
        sends.where(is_error & is_state & (self._get("base") != 0)).assign(self._values, error=state)

    def _described(self, ends: Source) -> Source:
        times = {} if self._phases is None else self._phases.times()
        known = {"latency": self._latency, "command": self.step, "error": self.error, "query": self._get("query")}
        return ends.derive(**known, **{f"{name}_ns": time for name, time in times.items()})

    def _optional(self, spec: FunctionSpec) -> Source:
        """A source of a function that some builds lack."""
        return self._session.source(self._session.optional(spec))

    def _get(self, name: str) -> Expression:
        return self._values.get(name)
