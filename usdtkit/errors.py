"""Every error that usdtkit raises on purpose: what happened, what to do next, and the exit code of the command.

Raised everywhere, caught only at the edge (`usdtkit.cli`), which prints the message, then the hint on its own line.
"""

from __future__ import annotations

from typing import ClassVar


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
