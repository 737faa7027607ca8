"""Show threads as they start and stop: those of Java and Python by name, those of C programs by their function.

The threads of a process that runs another language, such as Node or Ruby, are shown like those of a C program.

examples:
  usdtkit uthreads 1234
  usdtkit javathreads 1234
  usdtkit uthreads -l c -c 'mariadbd --user=mysql'
"""

from collections.abc import Mapping
from typing import Any

from usdtkit.cli import runtimeoptions
from usdtkit.cli.arguments import Spelling, process_argument
from usdtkit.cli.options import ToolOptions
from usdtkit.providers import runtimes
from usdtkit.records import replace
from usdtkit.results import PID, TID, TIME, Column, Rows
from usdtkit.trace import Session

TOPIC = "languages"
LANGUAGES = ("c", "java", "python")
VARIANTS = tuple(f"-l {language} -p 1" for language in LANGUAGES)
SPELLING = Spelling(shows_program=True)
COLUMNS = (
    *(TIME, replace(PID, heading=""), replace(TID, heading="")),
    Column("id", "ID", "id", 18, "the number of the thread; of a C program the address of its function"),
    Column("kind", "TYPE", width=16, meaning="thread start, thread stop, or pthread"),
    Column("name", type="text", meaning="the name of the thread; of a C program that of its function"),
    Column("description", "DESCRIPTION", meaning="the name as the table shows it"),
)


class Options(ToolOptions):
    """Options of `usdtkit uthreads`."""

    process: int | str | None = process_argument()
    language: str | None = runtimeoptions.language_option(*LANGUAGES)


processes = runtimeoptions.processes


def trace(session: Session, options: Options) -> Rows:
    """Trace threads; a row when one starts or stops."""
    threads = runtimes.of(session, options.language, among=LANGUAGES, otherwise="c").threads()

    def describe(event: Any) -> Mapping[str, Any]:
        change = threads.take(event)
        return {
            **{name: getattr(change, name) for name in ("time_ns", "pid", "tid", "kind", "name")},
            "id": change.tid if change.address is None else hex(change.address),
            "description": "?" if change.name is None else change.name,
        }

    return Rows(session, COLUMNS, describe)
