"""Show threads as they start and stop: Java's and Python's with their names, those of C programs with their function.

Of a process in another language the threads are shown as those of a C program: Node's, Ruby's.

examples:
  usdtkit uthreads 1234
  usdtkit javathreads 1234
  usdtkit uthreads -l c -c 'mariadbd --user=mysql'
"""

import argparse
from typing import Any

from usdtkit.cli.languages import add_language_options, tracing
from usdtkit.cli.run import follow
from usdtkit.output.report import TIME, Column
from usdtkit.output.text import show
from usdtkit.trace import arg, cstr, uprobe

TOPIC = "languages"

LANGUAGES = ("c", "java", "python")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
COLUMNS = [
    *(TIME, Column("ID", "id", 18), Column("TYPE", "kind", 16)),
    Column("DESCRIPTION", "description", 0),
]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit uthreads`."""
    add_language_options(parser, *LANGUAGES, otherwise="c")


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    with tracing(options) as runtime:
        session = runtime.session
        kinds = {threads.probe: threads for threads in runtime.language.threads}
        for threads in kinds.values():
            for source in runtime.sources(threads.probe):
                source.emit(name=cstr(threads.name, 64))
        if runtime.language.name == "c":
            session.source(uprobe("c", "pthread_create")).emit(start=arg(3))

        def describe(event: Any) -> dict[str, Any]:
            row = {"time_ns": event.time_ns, "pid": event.pid, "tid": event.tid}
            if event.probe in kinds:
                kind = kinds[event.probe].kind
                return {**row, "kind": kind, "name": event.name, "id": event.tid, "description": show(event.name)}
            label = session.symbol(event.pid, event.start).label
            return {**row, "kind": "pthread", "name": label, "id": hex(event.start), "description": label}

        return follow(session, options, "uthreads", COLUMNS, describe=describe)
