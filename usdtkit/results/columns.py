"""The columns of a tool's rows, each declared once: name, type, unit, width and meaning.

Input: nothing. Output: `Column`s and a `Schema`, from which `usdtkit.output` makes tables, JSON and CSV, `schemas` the
JSON Schema, and `usdtkit man` the column table of a manual page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from usdtkit.records import dataclass, replace

Type = Literal[
    "time", "duration", "integer", "count", "number", "boolean", "string", "text", "bytes", "stack", "pyframe", "list",
    "object", "buckets", "id",
]  # fmt: skip
"""The type of a column's values.

time      CLOCK_MONOTONIC in nanoseconds; every format except the table adds the wall-clock time as `time`
duration  nanoseconds, 0 or more
integer   any whole number; count is one that is 0 or more; number may have a fraction
string    text of usdtkit's own making
text      a string that was read from the traced program: None if it could not be read, perhaps cut off
bytes     bytes that were read in the same way; JSON shows them as hexadecimal digits
stack     a `usdtkit.trace.Stack`, `Calls`, or None; text has the labels of its frames, and JSON an object for each
pyframe   a `usdtkit.trace.PythonCaller`, or None; text has its function, file and line, and JSON an object
list, object, buckets   values that only JSON can show whole
id        a number or a text that identifies something
"""
Offsets = Literal["", "table", "all"]
FrameKind = Literal["", "native", "python"]
"""Which frames of a stack are shown: all, merged; those of machine code; or those of Python, PHP or Ruby."""
Role = Literal["", "name", "weight", "phase", "start"]
NUMBERS = ("duration", "integer", "count", "number")


@dataclass(frozen=True)
class Column:
    """One value of a tool's rows.

    `name` is the key in a row, with the unit at its end (`latency_ns`). `heading` is what a table calls the column;
    without one the table leaves it out. `width` is the column's width in a table, and 0 stands for the rest of the
    line. `meaning` is one phrase for the reader of a manual page or a JSON Schema.

    `unit` is the unit in which a table shows a duration: "s", "ms" or "us". `show` turns a value into the text of a
    table's cell if the type alone does not say how; for a stack it is given the labels of its frames. Without `show`,
    a table puts a stack's frames on lines of their own, below a line with the text `above`. `left` aligns a number to
    the left.

    `of` makes the value of an event, if it is not simply the event's field of this name.

    `nullable` values may be None. An `optional` column is missing from the rows with some options. A `table_only`
    column is for people: other formats have the values that it was made of. `values` are all values of a string.
    `fields` are the columns of an object, or of each object of a list. `offsets` says whether the labels of a stack's
    frames have offsets in a table, or in all text; JSON has them always. `addresses` adds the frames' addresses.
    `frames` are the ones of a stack that are shown. `role` says what a picture makes of the value: the name of a call,
    the weight of a stack, the phase of a call ("->" when it begins, "<-" when it ends), or the start of a call if the
    row's time is not its end.
    """

    name: str
    heading: str = ""
    type: Type = "string"
    width: int = 0
    meaning: str = ""
    unit: str = ""
    show: Callable[[Any], str] | None = None
    above: str = ""
    left: bool = False
    nullable: bool = False
    optional: bool = False
    table_only: bool = False
    of: Callable[[Any], Any] | None = None
    values: Sequence[str] = ()
    fields: Sequence[Column] = ()
    offsets: Offsets = ""
    addresses: bool = False
    frames: FrameKind = ""
    role: Role = ""

    @property
    def right(self) -> bool:
        """Whether a table aligns the values to the right."""
        return self.type in NUMBERS and not self.left


@dataclass(frozen=True)
class Schema:
    """The output of a tool: `usdtkit.NAME/VERSION`, its columns, and whether its rows come in blocks.

    The version rises when a column goes or changes its meaning.
    """

    name: str
    columns: Sequence[Column] = ()
    in_blocks: bool = False
    version: int = 1

    @property
    def title(self) -> str:
        """The name that a header of JSON Lines carries, such as "usdtkit.gethostlatency/1"."""
        return f"usdtkit.{self.name}/{self.version}"

    def row(self, event: Any) -> dict[str, Any]:
        """The values of an event by the names of the columns."""
        return {
            column.name: getattr(event, column.name) if column.of is None else column.of(event)
            for column in self.columns
        }

    def of_type(self, *types: Type) -> list[Column]:
        """The columns of these types."""
        return [column for column in self.columns if column.type in types]

    def with_role(self, role: Role) -> Column | None:
        """The column that plays this role in a picture, or None."""
        return next((column for column in self.columns if column.role == role), None)


TIME = Column("time_ns", "TIME", "time", 12, "when it happened, CLOCK_MONOTONIC in nanoseconds")
PID = Column("pid", "PID", "integer", 7, "the process")
TID = Column("tid", "TID", "integer", 7, "the thread")
UID = Column("uid", "UID", "integer", 7, "the user of the process")
COMM = Column("comm", "COMM", "text", 16, "the name of the thread")
COMMAND = Column("command", "COMMAND", width=8, meaning="what the client asked for", show=lambda value: value or "-")
ERROR = Column(
    *("error", "ERROR"),
    width=5,
    meaning="the error that ended it: PostgreSQL's SQLSTATE, MySQL's number",
    show=lambda value: value or "-",
    nullable=True,
)
PYCALLER = Column(
    "pycaller", "PYCALLER", "pyframe", 24, "with --pycaller: the function of Python that called", optional=True
)
PROBE = Column("probe", meaning="the probe or function that sent the event")
LATENCY_MS = Column(
    "latency_ns",
    "LAT(ms)",
    "duration",
    9,
    "the time from entry to return, or from start to end",
    unit="ms",
    role="weight",
)
LATENCY_US = Column(
    "latency_ns",
    "LAT(us)",
    "duration",
    9,
    "the time from entry to return, or from start to end",
    unit="us",
    role="weight",
)
PERCENTS = (50, 90, 99)
FRAME = (
    Column("name", nullable=True, meaning="the function, in Python and PHP with its class; null without a symbol"),
    Column(
        "kind",
        meaning="native: machine code of a file; jit: code that was compiled at run time and that a perf map names; "
        "python, php, ruby: a function of that language; or the language whose runtime told of the call",
    ),
    Column("file", nullable=True, meaning="the path of the source, of Python, PHP, Ruby and Go"),
    Column("line", type="integer", nullable=True, meaning="the line of the source"),
    Column("module", nullable=True, meaning="the path of the file with the machine code, or the kernel's name for it"),
    Column(
        "offset",
        type="integer",
        nullable=True,
        meaning="bytes from the beginning of the function; without a name, the virtual address in the module, or the "
        "place in the file that has the build-id, or the address in the process; null in languages, and if it differs "
        "among the stacks that are summed up",
    ),
    Column("build_id", nullable=True, meaning="the build-id of the module, in hexadecimal"),
    Column("address", type="integer", optional=True, meaning="the address in the process, if addresses were asked for"),
)
"""The columns of one frame of a stack."""
BUCKETS = (
    Column("value", optional=True, meaning="the value that was measured, with its unit"),
    Column("count", type="count", optional=True, meaning="how many values there were"),
    Column("sum", type="integer", optional=True, meaning="the sum of all values"),
    *(
        Column(f"p{percent}", type="integer", optional=True, meaning=f"{percent} % of the values are not above this")
        for percent in PERCENTS
    ),
    Column("buckets", type="buckets", optional=True, meaning="how many values each bucket has"),
)
"""The columns of a histogram."""


def part_columns(parts: Iterable[str], meaning: str, *, optional: bool = False) -> tuple[Column, ...]:
    """A column for each part of a time, such as `plan_ns` of the part "plan". Its name follows on `meaning`."""
    return tuple(
        Column(f"{part}_ns", f"{part.upper()}(ms)", "duration", 11, f"{meaning} {part}", unit="ms", optional=optional)
        for part in parts
    )


def seconds_column(*, unix: bool = False) -> Column:
    """`TIME` as seconds since now, or with `unix` since 1970."""
    from usdtkit.trace import wall_time  # lazy: a command that only has columns need not load the tracer

    now = time.monotonic_ns()

    def seconds(time_ns: int) -> str:
        return f"{wall_time(time_ns):.6f}" if unix else f"{(time_ns - now) / 1e9:.6f}"

    return replace(TIME, heading="TIME(s)", width=17 if unix else 12, show=seconds)
