"""`usdtkit doctor -p PID`: which frames the stacks of a process will have, and why not others.

Input: processes. Output: for each of its files whether callers are found by a table of call frames or by frame
pointers, for code that was compiled at run time whether it has names, and for Python, PHP and Ruby whether their
functions are shown. `doctor` shows the machine itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from usdtkit.cli.activity import title
from usdtkit.elf.image import Image
from usdtkit.errors import UnsupportedError
from usdtkit.kernel import features
from usdtkit.mappedfiles import VDSO, inspecting
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.output.sink import open_sink
from usdtkit.output.text import printable
from usdtkit.records import NamedTuple
from usdtkit.results.columns import Column, Schema
from usdtkit.trace.perfmap import PerfMaps
from usdtkit.unwind.mapped import MOST_MAPPINGS, NO_MAPPING, Processes
from usdtkit.unwind.phps import Phps
from usdtkit.unwind.pythons import Pythons
from usdtkit.unwind.rubies import Rubies
from usdtkit.unwind.store import MEGABYTES, Store

TABLES, FRAME_POINTERS, SHOWN, NONE = "tables", "frame pointers", "shown", "none"
SCHEMA = Schema(
    "doctor_process",
    (
        Column("pid", type="id", meaning="the process"),
        Column("name", meaning="a file that it runs, or what else there is to say something of"),
        Column(
            "frames",
            meaning="how callers of its functions are found; of a language whether its functions are shown",
            values=(TABLES, FRAME_POINTERS, SHOWN, NONE),
        ),
        Column("detail", meaning="the reason, if there are no tables, and what can be done"),
    ),
)
LANGUAGES = (
    ("Python's functions", "CPython", Pythons()),
    ("PHP's functions", "PHP", Phps()),
    ("Ruby's functions", "Ruby", Rubies()),
)


class Row(NamedTuple):
    """What is said of one file or language, as the columns have it."""

    name: str
    frames: str
    detail: str = ""


def run(pids: Sequence[int], *, json: bool) -> int:
    """Print what the stacks of these processes will show. NotFoundError, PrivilegeError."""
    sink = open_sink("json", sys.stdout) if json else None
    if sink is not None:
        sink.begin(SCHEMA)
    for pid in pids:
        rows = list(rows_of(pid))
        if sink is not None:
            for row in rows:
                sink.row({"pid": pid, **{name: printable(value) for name, value in row._asdict().items()}})
            continue
        print(printable(title(pid)))
        for row in rows:
            print(printable(f"    {row.frames:<15} {row.name}{f': {row.detail}' if row.detail else ''}"))
    return 0


def rows_of(pid: int) -> Iterator[Row]:
    """Everything that is known of the frames of a process. NotFoundError, PrivilegeError."""
    with inspecting(pid):
        mappings = [mapping for mapping in executable_mappings(maps_of(pid)) if mapping.start < NO_MAPPING]
        with Image.open(f"/proc/{pid}/exe") as image:
            bits = image.bits
    if bits != 64:
        yield Row("a 32-bit process", NONE, "its hits have no stacks, and are counted")
        return
    if _loop() == "missing":
        yield Row("all of its code", FRAME_POINTERS, "the kernel cannot walk by tables, as Linux 5.17 and newer can")
        return
    store = Store(_Nowhere())
    learned = Processes(store, lambda pid, entry: None, lambda pid: None).learn(pid)
    untabled = dict(learned.untabled)
    for name in dict.fromkeys(mapping.name for mapping in mappings if mapping.identity.inode or mapping.name == VDSO):
        if name in untabled:
            yield Row(name, FRAME_POINTERS, untabled[name].removeprefix(f"{name}: "))
        else:
            yield Row(name, TABLES)
    if compiled := [mapping for mapping in mappings if not mapping.identity.inode and mapping.name != VDSO]:
        size = sum(mapping.end - mapping.start for mapping in compiled)
        named = any(PerfMaps(pid))
        names = "a perf map names it" if named else "no perf map names it, such as node --perf-basic-prof writes"
        yield Row(f"{size >> 10:,} KB of memory without a file", FRAME_POINTERS, f"compiled at run time; {names}")
    if learned.left_out:
        reason = f"of a process, {MOST_MAPPINGS} mappings are known to the kernel"
        yield Row(f"{learned.left_out:,} more mappings", NONE, f"{reason}; stacks are cut in the others")
    yield Row("memory", TABLES, f"{store.size / (1 << 20):.1f} of {MEGABYTES} MB (--unwind-memory)")
    yield from _languages(pid)


def _languages(pid: int) -> Iterator[Row]:
    for name, implementation, runtimes in LANGUAGES:
        try:
            found = runtimes.of(pid)
        except UnsupportedError as error:
            yield Row(name, NONE, error.message)
            continue
        if found is not None:
            version = ".".join(map(str, found.build.version))
            yield Row(name, SHOWN, f"{implementation} {version} in {found.build.path}")


def _loop() -> str:
    return next(feature for feature in features.KERNEL if feature.name == "bpf_loop").test().state


class _Nowhere:
    """Maps that nobody reads."""

    def new_chunk(self, number: int, rows: bytes) -> None:
        """Forget it."""

    def update_chunk(self, number: int, offset: int, rows: bytes) -> None:
        """Forget it."""

    def write_index(self, first_page: int, pages: bytes) -> None:
        """Forget it."""
