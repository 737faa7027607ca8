"""Every error that usdtkit raises on purpose: what happened, what to do next, and the exit code of the command.

Raised everywhere, caught only at the edge (`usdtkit.cli`), which prints the message, then the hint on its own line.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import ClassVar


def as_root(*others: str) -> str:
    """The hint where a privilege is missing: what helps, with a line that starts this program again as root.

    `others`: what helps as well, such as "with CAP_BPF". The program is named by its path, because sudo searches for
    commands elsewhere than the user's shell.
    """
    import shlex  # only where something has failed

    if os.geteuid() == 0:
        return ", or ".join(("run with all capabilities of root", *others))
    # Every start imports this module, and importing pathlib takes long.
    started = os.path.abspath(sys.argv[0])  # noqa: PTH100
    command = [started, *sys.argv[1:]] if _is_command(started) else [sys.executable, *sys.orig_argv[1:]]
    folders = os.environ.get("PATH", os.defpath).split(":")
    has_sudo = any(os.path.exists(f"{folder}/sudo") for folder in folders)  # noqa: PTH110
    line = shlex.join(["sudo", *command] if has_sudo else ["su", "-c", shlex.join(command)])
    return f"{', or '.join(('run as root', *others))}: {line}"


def one_of(word: object, choices: Iterable[object], otherwise: str = "") -> str:
    """The hint where a word is none of the choices: those that are spelled like it, then all, or `otherwise`."""
    import difflib  # only where something has failed

    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(word), names, 3)
    rest = otherwise or f"one of {', '.join(names)}"
    return f"did you mean {' or '.join(near)}? {rest}" if near else rest


def _is_command(path: str) -> bool:
    """Whether the file at this path is run by its name, and not by giving it to Python."""
    try:
        return os.stat(path).st_mode & 0o111 != 0  # noqa: PTH116
    except (OSError, ValueError):
        return False


class UsdtkitError(Exception):
    """Something could not be done.

    `message` says what, where and why in one line; `hint` the next command or change that helps, or is None.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def details(self) -> tuple[str, ...]:
        """Lines that show where it is, between the message and the hint."""
        return ()


class ElfError(UsdtkitError):
    """A file is not an ELF file, or is damaged."""


class ProgramError(UsdtkitError):
    """The compiler, or the kernel, refuses a BPF program.

    `function` is the one of its functions, or the part of a user's, that it refuses, with `line` in that part; "" and
    0 where it does not say.
    """

    def __init__(self, message: str, function: str = "", line: int = 0, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.function = function
        self.line = line


class UsageError(UsdtkitError):
    """A spec, an expression or a declaration is wrong in itself."""

    exit_code = 2


class SpecError(UsageError):
    """A spec in one of the mini-languages is wrong: `text` is the spec, `at` the position, and `details` show both."""

    def __init__(self, message: str, text: str, at: int, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.at = at

    @property
    def details(self) -> tuple[str, ...]:
        """The line of the text, and a caret below the place."""
        start = self.text.rfind("\n", 0, self.at) + 1
        line, column = self.text[start:].partition("\n")[0], self.at - start
        shown = max(0, column - 60)  # of a long line the part around the place
        return f"  {line[shown : shown + 100]}", f"  {' ' * (column - shown)}^"


class PrivilegeError(UsdtkitError):
    """The kernel refuses for want of a capability."""

    exit_code = 3


class NotFoundError(UsdtkitError):
    """No such file, process, probe or function."""

    exit_code = 4


class UnsupportedError(UsdtkitError):
    """The kernel, or a program that is needed, lacks a feature."""

    exit_code = 5
