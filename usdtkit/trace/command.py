"""A command that is started for a session and traced from its first instruction.

Input: its words, and the file that they run. It exists as a process, to attach to, before it becomes the program;
`Session` lets it go on when all is attached, and ends it when the session is closed before it has ended by itself.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from usdtkit.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from usdtkit.trace.privileges import Identity

CANNOT_EXEC = 127


class Command:
    """One child process, waiting to become `program`."""

    def __init__(self, program: str, words: Sequence[str], identity: Identity | None = None) -> None:
        """`identity`: who runs it, where that is not who runs this."""
        self.exit_code: int | None = None
        gate, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(program, words, gate, self._go, identity)
        os.close(gate)

    def go(self) -> None:
        """Let it become the program."""
        if self._go >= 0:
            os.write(self._go, b"!")
            self._close_gate()

    def close(self) -> None:
        """End it if it still runs, and collect it; `exit_code` as the shell would say it."""
        self._close_gate()
        if self.exit_code is None:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.kill(self.pid, signal.SIGTERM)
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _close_gate(self) -> None:
        if self._go >= 0:
            os.close(self._go)
            self._go = -1


def find_program(words: Sequence[str]) -> str:
    """Where the command of these words is. UsageError of no words, NotFoundError where there is no such command."""
    if not words:
        raise UsageError("an empty command cannot be traced")
    import shutil  # which costs more than all else here

    program = shutil.which(words[0])
    if program is None:
        raise NotFoundError(f"no command {words[0]!r}", hint="a path, or a name in PATH")
    return program


def _become(program: str, words: Sequence[str], gate: int, go: int, identity: Identity | None) -> None:
    """In the child: wait, then exec. Where the tracer has died meanwhile, end."""
    try:
        os.close(go)
        if os.read(gate, 1):
            if identity is not None:
                identity.assume()
            os.execv(program, list(words))
    finally:
        os._exit(CANNOT_EXEC)
