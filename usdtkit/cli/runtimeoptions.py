"""The words that the tools for languages share: a process, its language, and names of methods.

Input: the names of the languages that a tool can deal with. Output: fields for its `Options`, and the `processes` that
it traces if the user names none.
"""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from usdtkit.cli.options import ToolOptions, option
from usdtkit.cli.values import pid, seconds
from usdtkit.errors import UsageError
from usdtkit.providers import runtimes


def process_argument() -> Any:
    """The field for PID, the process to trace."""
    return option(type=_process, default=None, metavar="PID", session="pid", help="trace this process")


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


def _process(text: str) -> int:
    """For argparse: a process's number. The manuals of bcc's tools put a language before it; these tools do not accept
    one there."""
    if text in [language.name for language in runtimes.LANGUAGES]:
        raise argparse.ArgumentTypeError(f"{text!r} is a language: write -l {text} before the PID")
    return pid(text)


def _language(text: str) -> str:
    """For argparse: the name of a language. bcc calls a program without a runtime "none"."""
    return "c" if text == "none" else text
