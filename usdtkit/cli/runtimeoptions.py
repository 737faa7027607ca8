"""The words that the tools for languages share: the language of a process, an interval, and names of methods.

Input: the names of the languages that a tool can deal with. Output: fields for its `Options`, and the `processes` that
it traces if the user names none.
"""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import seconds
from usdtkit.errors import UsageError
from usdtkit.providers import runtimes

FIRST_PID = 300  # the kernel gives the numbers below it only once, when the machine starts


def language_option(*languages: str) -> Any:
    """The field for -l, the name of a language."""
    return option(
        *("-l", "--language"),
        type=_language,
        default=None,
        choices=languages,
        help="the language of the process, if it cannot be found out from its files",
    )


def interval_argument() -> Any:
    """The field for INTERVAL behind PID, where bcc's tools for languages have it."""
    return option(
        type=seconds,
        action=_Interval,
        default=None,
        metavar="INTERVAL",
        help="print and reset every INTERVAL seconds; without it, print once at the end",
    )


class MethodOptions(ToolOptions):
    """The options that choose methods by name."""

    method: str = option(
        *("-M", "--method"),
        default="",
        metavar="GLOB",
        help="only methods whose name begins with this, or matches it: 'get*Id'",
    )
    group: str = option(
        *("-C", "--class"),
        default="",
        metavar="GLOB",
        help="only methods whose class, file or package begins with this, or matches it",
    )


class HasLanguage(Protocol):
    """Options with a language."""

    @property
    def language(self) -> str | None: ...


def processes(options: HasLanguage) -> list[int]:
    """The processes to trace if the user names neither these nor a command: all that run the language."""
    if options.language in (None, "c"):
        raise UsageError("there is nothing to trace", hint="give a PID, or a command to start: -c 'ruby app.rb'")
    return runtimes.speaking(str(options.language))


class _Interval(argparse.Action):
    """Keeps the interval. The manuals of bcc's tools put a language before a PID, which would be taken for the name of
    a program here, and the PID for the interval."""

    def __call__(self, parser: Any, namespace: Any, value: Any, option_string: str | None = None) -> None:
        if value is not None and value >= FIRST_PID and (mistake := misplaced(getattr(namespace, "process", None))):
            parser.error(mistake)
        setattr(namespace, self.dest, value)


def misplaced(process: object) -> str:
    """Say of a language in the place of a process how to write it; "" for anything else."""
    languages = ("c", "none", *(language.name for language in runtimes.LANGUAGES))
    return f"{process!r} is a language: write -l {process} before the PID" if process in languages else ""


def _language(text: str) -> str:
    """For argparse: the name of a language. bcc calls a program without a runtime "none"."""
    return "c" if text == "none" else text
