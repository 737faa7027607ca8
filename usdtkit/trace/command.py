"""A command that is started for a session and traced from its first instruction.

Input: the words of the command, and the file that they run. Output: a process that waits before it becomes the program,
so that a session can attach to it first. `presence` lets it continue when everything is attached, and ends it if the
session is closed before the command has ended.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from usdtkit._ffi import lib
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError

if TYPE_CHECKING:
    from usdtkit.trace.privileges import User

CANNOT_EXEC = 127
CHILDREN_FAULTS = 8  # of the fields of /proc/PID/stat behind the name: page faults of the children it has waited for
# The byte that the child reads: become the program, or become it as a process that we may stop for a moment.
GO, GO_STOPPABLE = b"!", b"s"


class Command:
    """One child process, waiting to become `program`."""

    def __init__(
        self, program: str, words: Sequence[str], user: User | None = None, *, stdout: int | None = None
    ) -> None:
        """`user`: the user who runs the command; None is the present one. `stdout`: the descriptor that its standard
        output goes to; None is ours."""
        self.exit_code: int | None = None
        self.program, self.words = program, words
        self._ended_by_us = False
        gate, self._go = os.pipe()
        self._failure, failure = os.pipe()  # carries an errno if exec fails; exec closes it
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.close(self._failure)
            _become(program, words, gate, failure, user, stdout)
        os.close(gate)
        os.close(failure)

    def go(self, *, stoppable: bool = False) -> None:
        """Let it become the program. UsdtkitError where the kernel does not run that program.

        `stoppable`: we may stop it for a moment later; if we are killed at that moment, the kernel lets it go on.
        """
        if self._go >= 0:
            os.write(self._go, GO_STOPPABLE if stoppable else GO)
            self._close_gate()
            code = int.from_bytes(os.read(self._failure, 4), "little")
            os.close(self._failure)
            self._failure = -1
            if code:
                self._ended_by_us = True
                raise UsdtkitError(
                    f"the command {self.words[0]!r} cannot be started: {os.strerror(code)}",
                    hint="a script needs a first line such as #!/bin/sh" if code == errno.ENOEXEC else None,
                )

    @property
    def status(self) -> int | None:
        """How it ended: its exit status, or the negative number of the signal. None while it runs, and where we ended
        it with the session."""
        if self._ended_by_us:
            return None
        if self.exit_code is None:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return None
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self.exit_code

    def has_started_others(self) -> bool:
        """Whether it has started processes and waited for one of them. False after `close`."""
        try:
            with open(f"/proc/{self.pid}/stat", "rb") as file:  # noqa: PTH123 importing pathlib takes long
                fields = file.read().rpartition(b") ")[2].split()
        except OSError:
            return False
        return int(fields[CHILDREN_FAULTS]) > 0  # every program that starts causes page faults

    def close(self) -> None:
        """End it if it still runs, and wait for it. `exit_code` then says how it ended, as `status` does."""
        self._ended_by_us |= self._go >= 0
        self._close_gate()
        if self._failure >= 0:
            os.close(self._failure)
            self._failure = -1
        if self.exit_code is None:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                self._ended_by_us = True
                os.kill(self.pid, signal.SIGTERM)
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _close_gate(self) -> None:
        if self._go >= 0:
            os.close(self._go)
            self._go = -1


def find_program(words: Sequence[str]) -> str:
    """The path of the command. UsageError where there are no words, NotFoundError where there is no such command."""
    if not words:
        raise UsageError("an empty command cannot be traced")
    import shutil  # lazy: only sessions with a command need it

    program = shutil.which(words[0])
    if program is None:
        raise NotFoundError(f"no command {words[0]!r}", hint="a path, or a name in PATH")
    return program


def _become(program: str, words: Sequence[str], gate: int, failure: int, user: User | None, stdout: int | None) -> None:
    """In the child: wait for the word, then exec. If the tracer dies before that, exit."""
    try:
        if word := os.read(gate, 1):
            if stdout is not None:
                os.dup2(stdout, 1)
            if user is not None:
                user.assume()
            if word == GO_STOPPABLE:  # after the change of user, which would undo it
                lib.usdtkit_parent_death_signal(signal.SIGCONT)
            os.execv(program, list(words))
    except OSError as error:
        os.write(failure, (error.errno or 0).to_bytes(4, "little"))
    finally:
        os._exit(CANNOT_EXEC)


def ending(status: int) -> str:
    """A sentence that says how a command ended: `status` is its exit status, or the negative number of a signal."""
    if status >= 0:
        return f"the command exited with status {status}"
    if status == -signal.SIGTRAP:
        return (
            "the command was ended by SIGTRAP, as happens to programs that copy their code with our breakpoints in it"
        )
    try:
        return f"the command was ended by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"the command was ended by signal {-status}"
