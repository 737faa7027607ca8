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
        threads = runtime.threads()

        def describe(event: Any) -> dict[str, Any]:
            change = threads.take(event)
            row = {name: getattr(change, name) for name in ("time_ns", "pid", "tid", "kind", "name")}
            own_id = change.tid if change.address is None else hex(change.address)
            return {**row, "id": own_id, "description": show(change.name)}

        return follow(runtime.session, options, "uthreads", COLUMNS, describe=describe)
