"""One tracing session, from the definition through loading and attaching to events, summaries and an account of every
hit.

Input: the sources and actions of `definition`. Output: the ways to read of `reading`, tables, and a `Summary`. This
module starts a `running` program once, and closes it. Everything in the kernel is tied to descriptors of this process,
so closing the session, or the end of the process by any cause, detaches everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from usdtkit.errors import ProgramError, UsageError
from usdtkit.model import UNWIND_POLICIES
from usdtkit.trace.blueprint import Settings
from usdtkit.trace.definition import Definition
from usdtkit.trace.plan import Planned, Summary, totals
from usdtkit.trace.presence import Presence
from usdtkit.trace.reading import Reading
from usdtkit.trace.waiting import Waiter

if TYPE_CHECKING:
    from usdtkit.kernel.attach.sites import Refusal
    from usdtkit.trace.command import Command
    from usdtkit.trace.memory import Frame
    from usdtkit.trace.privileges import User
    from usdtkit.trace.running import Running
    from usdtkit.trace.stacks import Stacks

PAGE = 4096
MOST_MEGABYTES = 4096


class Session(Reading, Definition):
    """Trace the processes `pid`; or `command`, which the session starts and traces from its first instruction; or every
    process that maps a traced file, now or later.

    `pid`: one or several, by number, or by name (`usdtkit.targets.processes_of`): all that are called so now.

    Define sources and their actions, then iterate. Iteration attaches, and ends with `stop()`, after `duration`
    seconds, or when all of the processes have ended; the events that are still in the buffer are yielded first.

    `ring_size`: bytes for events in the kernel, a power of two. `string_size`: bytes read of a string argument.
    `capacity`: how many entries each table in the kernel can hold: open pairs, keys of counts and histograms, stacks,
    and the maps that were given no capacity of their own. `method`: how to attach, one of
    `usdtkit.kernel.attach.links.METHODS`; None takes the best that the kernel has. `ordered`: events come in the order
    of `time_ns` instead of that of the buffer, which differs between processors; `batches` keep the buffer's.
    `delay`: for how many seconds events may gather in the buffer before iteration reads them, all at once. To be woken
    20 times a second (0.05) costs far less than to be woken for each event. A buffer that fills is read earlier, so
    that no event is lost by it. `poll` never lets events gather.
    `drop_privileges`: when all is attached, give up every privilege, and become this user (a name or number). True
    means the user who called sudo, or else the user nobody. The `command` is run by that user too. `command_stdout`:
    the descriptor for the standard output of the command; None shares ours. `returns`: how the returns of functions are
    seen. "auto" uses the kernel's return probes where these cannot harm the program, and else probes on the
    instructions that leave the function; "sites" always uses the latter, "probes" always return probes.

    `discover`: attach also to what starts while the session runs, within a fifth of a second: files of other versions,
    copies in other containers, files that are made later; with `pid`, what these processes map later. The summary says
    from how many files and processes hits came. `follow`: with `pid`, trace also what these processes have started and
    will start. The children of a `command` are always followed. A session ends with the processes that it was given.

    `unwind`: how the callers in stacks are found. "auto" uses the call frame information of files, by which stacks are
    whole, where the kernel can do that (Linux 5.17); "frame-pointers" does without. `unwind_memory`: megabytes for the
    tables of that, 1 to 4096. What does not fit is followed by frame pointers, and said.

    `offline`: nothing on this machine is inspected or started. Sources come from `usdtkit.signatures`, and the first
    `lacking` searches find nothing. Such a session is only good for its `program().text`.
    """

    def __init__(
        self,
        *,
        pid: int | str | Iterable[int | str] | None = None,
        command: Sequence[str] | None = None,
        duration: float | None = None,
        ring_size: int = 8 << 20,
        string_size: int = 128,
        capacity: int | None = None,
        method: str | None = None,
        ordered: bool = False,
        delay: float = 0.0,
        drop_privileges: bool | str = False,
        command_stdout: int | None = None,
        returns: str = "auto",
        offline: bool = False,
        lacking: int = 0,
        discover: bool = False,
        follow: bool = False,
        unwind: str = "auto",
        unwind_memory: int = 32,
    ) -> None:
        if ring_size < PAGE or ring_size & (ring_size - 1):
            raise UsageError(f"a ring buffer cannot have {ring_size} bytes", hint=f"use a power of two, {PAGE} or more")
        if unwind not in UNWIND_POLICIES:
            raise UsageError(f"{unwind!r} is no way to find callers", hint=f"one of {', '.join(UNWIND_POLICIES)}")
        if not 1 <= unwind_memory <= MOST_MEGABYTES:
            raise UsageError(f"tables of call frames cannot take {unwind_memory} MB", hint=f"1 to {MOST_MEGABYTES}")
        super().__init__(
            pid=pid,
            command=command,
            string_size=string_size,
            capacity=capacity,
            returns=returns,
            offline=offline,
            lacking=lacking,
            follow=follow,
        )
        keeps = drop_privileges is False  # those that attaching takes
        follows = keeps and ((follow and pid is not None) or command is not None)
        discovers = follows or (keeps and discover)
        self._settings = Settings(ring_size, capacity, method, ordered, discovers, follows, unwind, unwind_memory)
        self._new_user = None
        if drop_privileges is not False:
            self._new_user = _user(None if drop_privileges is True else drop_privileges)
        self._child: Command | None = None
        if self._program is not None and command is not None:
            from usdtkit.trace.command import Command  # lazy: most sessions start no command

            self._child = Command(self._program, command, self._new_user, stdout=command_stdout)
            self.pids = (self._child.pid,)
        self._running: Running | None = None
        self._names: Stacks | None = None  # what names addresses, where the program takes no stacks
        self._waiter = Waiter(() if offline else self.pids, duration, delay)
        self._closed = False
        self.presence = Presence(self.pids, self._child, method, follows=follows)

    def start(self, announce: Callable[[list[Planned]], None] | None = None) -> None:
        """Compile (or take from the cache), load, attach. Iteration does it by itself; a second time does nothing.

        `announce` is called with the plan when nothing is missing and nothing attached.
        """
        try:
            self._start(announce)
        except ProgramError as error:
            from usdtkit.kernel.diagnose import diagnose  # lazy: only needed when the verifier rejects the program

            raise diagnose(self._blueprint.hooks, error) from None

    def _start(self, announce: Callable[[list[Planned]], None] | None) -> None:
        self._check_not_closed()
        if self._running is not None:
            return
        if self.offline:
            raise UsageError("an offline session cannot start", hint="session.program().text is its program")
        from usdtkit.trace.running import Running  # lazy: 3 ms, and neither help nor --explain runs a program

        self._running = Running(
            self._blueprint, self._settings, self.pids, self.presence, self._make_stacks, self.remark
        )
        self._blueprint.seal("the session has started: add sources and actions before that")
        try:
            self._running.attach(announce)
            running = self._running
            self._waiter.watch(*running.descriptors, since=running.started_at, most=running.most_delay)
            if self._new_user is not None:
                self._running.drop_privileges(self._new_user)
            self._running.discover()
            self.presence.begin()
        except BaseException:
            self.close()
            raise

    def plan(self) -> list[Planned]:
        """Every site that `start` would attach to, and nothing attached. UsageError once the session is closed."""
        self._check_not_closed()
        return super().plan()

    def drop_privileges(self, user: str | None = None) -> None:
        """Give up every privilege of this process: become `user` (a name or number; None is the user who called sudo,
        or else nobody), without groups and capabilities. This cannot be undone. The trace continues.

        After that, names in stacks are known for the processes that were inspected before, and for those of that user.
        Raises UnsupportedError where the kernel (before Linux 5.19) does not let such a process read counts.
        """
        self._check_not_closed()
        if self._running is None:
            raise UsageError("the session has not started", hint="session.start(), or Session(drop_privileges=True)")
        if self._child is not None:
            raise UsageError(
                "a command that was started as another user could not be ended",
                hint="Session(command=…, drop_privileges=True)",
            )
        self._running.drop_privileges(_user(user))

    def symbol(self, pid: int, address: int) -> Frame:
        """The function that a process has at an address of code (`ip`, `caller`, a pointer to a function).

        Call this while the process runs; later it only works for a process that was asked for before, because its
        mappings are kept. If nothing is known, the frame has no name and its `label` is the address.
        """
        if self._running is not None and self._running.stacks is not None:
            return self._running.stacks.frame(pid, address)
        if self._names is None:
            self._names = self._make_stacks()
        return self._names.frame(pid, address)

    @property
    def refused(self) -> list[Refusal]:
        """Sites that the kernel did not take; all others are attached."""
        return [] if self._running is None else self._running.refused

    @property
    def command_status(self) -> int | None:
        """How the command ended by itself: its exit status, or the negative number of the signal; None of none."""
        return self.presence.command_status

    def summary(self) -> Summary:
        """The account so far. It stays when the session is closed."""
        if self._running is not None:
            return self._running.summary()
        nothing = totals(self._blueprint.hooks, (), {})
        zero = dict.fromkeys(("files", "processes", "unlooked", "received", "rejected", "stacks", "untabled"), 0)
        unseen = self._blueprint.unseen.read()
        return Summary(**nothing, **zero, **self.presence.account(), unseen=unseen, cut_stacks=(), duration_s=0.0)

    def unexplained_ends(self) -> int:
        """How many ends came without a start, where they are more than the calls that were open when the trace began.

        Those are one a thread, or a few where calls nest. Where nothing was completed, even a few say why; else 0.
        """
        return 0 if self._running is None else self._running.unexplained_ends()

    def advice(self, larger: str = "Session(capacity=N)") -> list[str]:
        """What to look after, a line each; often nothing. Probes that the traced programs call with wrong values, hits
        that a full table did not take, and what would give the stacks that were read more names. `larger`: how the
        reader of these lines asks for larger tables."""
        return [] if self._running is None else self._running.advice(larger)

    def detach(self) -> None:
        """Take all probes off; what was counted and sent stays readable until `close`."""
        if self._running is not None:
            self._running.detach()

    def close(self) -> None:
        """Detach and free everything. The summary stays."""
        if self._closed:
            return
        # First of all, so that a late `stop` does not write to what has its descriptor's number next.
        self._closed = True
        self._blueprint.seal("the session is closed", hint="create a new session")
        if self._running is not None:
            self._running.close()
        self._blueprint.forget_places()
        self._waiter.close()
        self.presence.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_not_closed(self) -> None:
        if self._closed:
            raise UsageError("the session is closed", hint="create a new session")

    def _make_stacks(self) -> Stacks:
        from usdtkit.trace.stacks import Stacks  # lazy: most sessions take no stacks

        places = (place for resolved in self._blueprint.places for place in resolved.user_places)
        pids = self.pids if self._child is None else ()  # a command maps its program when it begins
        return Stacks(pids, [place.opened for place in places])


def _user(name: str | None) -> User:
    from usdtkit.trace.privileges import User  # lazy: most sessions keep their privileges

    return User.of(name)
