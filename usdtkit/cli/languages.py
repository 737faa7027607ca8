"""The options that the tools for languages share, and a session with the runtime that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from usdtkit.cli.arguments import add_session_options
from usdtkit.cli.run import new_session
from usdtkit.cli.values import pid, seconds
from usdtkit.errors import UsageError
from usdtkit.providers import runtimes
from usdtkit.providers.runtimes.languages import BY_NAME
from usdtkit.providers.runtimes.runtime import Runtime


def add_language_options(parser: argparse.ArgumentParser, *languages: str, otherwise: str = "") -> None:
    """PID, -l, -v and the options of a session. `otherwise`: what is traced of processes in any other language."""
    parser.add_argument("process", nargs="?", type=_process, metavar="PID", help="the process to trace")
    parser.add_argument(
        "-l", "--language", type=_language, choices=languages, help="its language, where it is not found out"
    )
    add_session_options(parser, shows_program=True)
    parser.set_defaults(languages=languages, otherwise=otherwise)


def add_trailing_interval(parser: argparse.ArgumentParser) -> None:
    """The number of seconds after the PID, as bcc's tools for languages have it."""
    parser.add_argument("interval", nargs="?", type=seconds, metavar="INTERVAL", help="print every so many seconds")
    parser.set_defaults(intervals=None, timestamp=False)


def add_name_options(parser: argparse.ArgumentParser) -> None:
    """-M and -C, which choose methods."""
    parser.add_argument(
        "-M", "--method", metavar="GLOB", help="only methods whose name begins so, or matches: 'get*Id'"
    )
    parser.add_argument("-C", "--class", dest="group", metavar="GLOB", help="only of such classes, files or packages")


@contextmanager
def tracing(options: argparse.Namespace, **more: Any) -> Iterator[Runtime]:
    """A session for the options, and the runtime that it traces."""
    pids = [*([options.process] if options.process else []), *(options.pid or [])]
    if options.language not in (None, "c") and not pids and not options.command:
        pids = runtimes.speaking(options.language)
    if bool(pids) == bool(options.command):
        raise UsageError("what should be traced?", hint="a PID, or a command to start: -c 'ruby app.rb'")
    with new_session(options, pids=pids or None, **more) as session:
        yield runtimes.of(session, options.language, among=options.languages, otherwise=options.otherwise)


def _process(text: str) -> int:
    if text in BY_NAME:  # as the manuals of bcc's tools have it, and none of these tools
        raise argparse.ArgumentTypeError(f"{text!r} is a language: -l {text}, and then the number of the process")
    return pid(text)


def _language(text: str) -> str:
    return "c" if text == "none" else text  # bcc's word for a program without a runtime
