"""The tables of call frame information, at every address where readelf and pyelftools see a rule begin."""

import collections
import itertools
import re
import subprocess
from pathlib import Path

import pytest
from elftools.dwarf.callframe import FDE
from elftools.dwarf.dwarf_expr import DWARFExprParser
from elftools.elf.elffile import ELFFile
from programs.golang import DEBIAN, NEWEST
from walkermaps import NODE

from usdtkit.elf.image import Image
from usdtkit.unwind import tables
from usdtkit.unwind.tables import read_table

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
CROSS = "/usr/aarch64-linux-gnu/lib"
RANGE = re.compile(r"\w+ \w+ \w+ FDE cie=\w+ pc=(\w+)\.\.(\w+)")
HEAD = re.compile(r" +LOC +CFA +(.*)")
LINE = re.compile(r"([0-9a-f]{16}) (?:exp|(\w+?)([+-]\d+)) +(.*)")
FRAMES = {"rsp": tables.SP, "sp": tables.SP, "rbp": tables.FP, "x29": tables.FP}
FRAMES |= {"rax": tables.RAX, "r10": tables.R10, "r11": tables.R11}
NUMBERS = {
    "x86_64": {7: "rsp", 6: "rbp", 0: "rax", 10: "r10", 11: "r11"},
    "aarch64": {31: "sp", 29: "x29"},
}
FP_AND_RA = {"x86_64": (6, 16, "rbp"), "aarch64": (29, 30, "x29")}
BY_EXPRESSION = (tables.PLT, tables.AT_FP, tables.AT_SP, tables.BEHIND_SP)
GAP = 32
FARTHEST = 8 * 0x7FFF  # bytes; Go has a function whose frame has 256 KB


def place(low, high, row):
    """Where a register is saved that lies at `slot`, seen from the frame address or from what that is found from."""
    if row.saved == low:
        return f"c-{8 * row.slot}"
    return f"c-{8 * (row.offset - row.slot)}" if row.saved == high else "u"


def agrees(machine, row, base, offset, fp, ra):
    """Whether a row says the same as the oracle: a register or "exp" and a number, "u" or "c-16" or something else."""
    if machine == "aarch64":
        if row.frame == tables.END:
            return ra == "u"
        if row.frame == tables.OTHER:
            return base not in FRAMES or offset > FARTHEST
        both = place(tables.SAVED_PAIR, tables.SAVED_PAIR_HIGH, row)
        our_ra = f"c{int(both[1:]) + 8}" if both != "u" else place(tables.SAVED_RA, tables.SAVED_RA_HIGH, row)
        our_fp = both if both != "u" else place(tables.SAVED_FP, None, row)
        return (row.frame, 8 * row.offset, our_fp, our_ra) == (FRAMES[base], offset, fp, ra)
    if ra in ("u", "exp"):
        return row.frame == (tables.END if ra == "u" else tables.SIGNAL)
    if row.frame == tables.OTHER:
        return ra != "c-8" or base not in FRAMES or offset > FARTHEST
    if base == "exp":
        return row.frame in BY_EXPRESSION
    if row.saved == tables.LOST:
        saved = fp if fp != "u" and not fp.startswith("c-") else "lost"
    else:
        saved = {tables.SAVED_FP: f"c-{8 * row.slot}", tables.SAVED_AT_FP: "exp", tables.NOT_SAVED: "u"}[row.saved]
    return (row.frame, 8 * row.offset, saved, "c-8") == (FRAMES[base], offset, fp, ra)


def described(path):
    """What readelf says: (start, end, [(address, base, offset, fp, ra)]) of each range."""
    # It fails where it has warned; then too it has shown all.
    dump = subprocess.run(["readelf", "--debug-dump=frames-interp", path], text=True, capture_output=True).stdout
    found, columns = [], []
    for line in dump.splitlines():
        if " CIE " in line:
            rows = []  # of the common part, which nobody reads
        elif match := RANGE.match(line):
            rows = []
            found.append((int(match[1], 16), int(match[2], 16), rows))
        elif match := HEAD.match(line):
            columns = match[1].split()
        elif match := LINE.match(line):
            values = dict(zip(columns, re.sub(r" \(\w+\)", "", match[4]).split(), strict=True))
            fp = values.get("rbp", values.get("x29", "u")).replace("s", "u")
            rows.append((int(match[1], 16), match[2] or "exp", int(match[3] or 0), fp, values.get("ra", "u")))
    return found


FILES = [
    (f"{LIBRARIES}/libc.so.6", 3700),
    (f"{LIBRARIES}/libssl.so.3", 1200),
    (f"{LIBRARIES}/libcrypto.so.3", 10_000),
    (f"{LIBRARIES}/libgcrypt.so.20", 1600),
    ("/usr/bin/python3.11", 9_500),
    ("/usr/lib/postgresql/15/bin/postgres", 17_000),
    ("/usr/sbin/mariadbd", 35_000),
    ("/usr/bin/php8.2", 9000),
    (NODE, 50_000),
    (f"{CROSS}/libc.so.6", 3300),
    (f"{CROSS}/libasan.so.8", 2800),
    (f"{CROSS}/libstdc++.so.6", 4400),
]


@pytest.mark.parametrize(("path", "at_least"), FILES)
def test_every_row_is_that_of_readelf(path, at_least):
    compare(path, at_least)


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST])
def test_debug_frame_of_go(build_go, compiler):
    compare(str(build_go(compiler=compiler)), 1400)


def compare(path, at_least):
    with Image.open(path) as image:
        table = read_table(image)
    ranges, differ, lines, others, left_out = described(path), [], 0, 0, 0
    for start, end, rows in ranges:
        if table.find(start).frame == tables.NONE:
            left_out += 1
            continue
        rows = [row for row in rows if start <= row[0] < end]
        for at, (address, *rule) in enumerate(rows):
            last = (rows[at + 1][0] if at + 1 < len(rows) else end) - 1
            lines += last >= address
            for looked in {address, last} if last >= address else ():
                row = table.find(looked)
                others += row.frame == tables.OTHER
                if not agrees(table.machine, row, *rule):
                    differ.append((hex(looked), rule, row))
    counted = sum(count for reason, count in table.counts.items() if reason != "ranges")
    assert [*differ[:5], len(differ)] == [0]
    # glibc for aarch64 has one function whose callers want to be returned to by x15.
    assert left_out == table.counts["unreadable"] == (path == f"{CROSS}/libc.so.6")
    assert table.counts["ranges"] == len(ranges) >= at_least
    assert lines > at_least
    assert others <= 2 * counted
    assert counted < 0.005 * lines
    ordered = sorted(ranges)
    for (_, end, _), (start, _, _) in itertools.pairwise(ordered):
        if start - end >= GAP:
            assert {table.find(address).frame for address in (end + 1, start - 1)} == {tables.NONE}


def expression(parser, code):
    """(frame, number, ...) of an expression for the frame address; None if no row can say it."""
    parts = [(op.op_name.removeprefix("DW_OP_"), *op.args) for op in parser.parse_expr(code)]
    match parts:
        case [("breg7", 8), ("breg16", 0), ("lit15",), ("and",), (_,), ("ge",), ("lit3",), ("shl",), ("plus",)]:
            return tables.PLT, 8, int(parts[4][0].removeprefix("lit"))
        case [("breg6", offset), ("deref",)]:
            return tables.AT_FP, offset
        case [("breg7", 160), ("deref",)]:
            return tables.SIGNAL, 0
        case [("breg7", offset), ("deref",)]:
            return tables.AT_SP, offset
        case [("breg7", offset), ("deref",), ("plus_uconst", 8)]:
            return tables.BEHIND_SP, offset
    return None


def written(rule, parser):
    """A rule of pyelftools as readelf writes it."""
    match rule and rule.type:
        case None | "SAME_VALUE":
            return "u"
        case "UNDEFINED":
            return "undefined"
        case "OFFSET":
            return f"c{rule.arg:+d}"
        case "EXPRESSION":
            parts = [(op.op_name, *op.args) for op in parser.parse_expr(rule.arg)]
            return (
                "exp" if parts in ([("DW_OP_breg6", 0)], [("DW_OP_breg7", 168)], [("DW_OP_breg7", 120)]) else "another"
            )
    return "another"


@pytest.mark.parametrize(
    "path",
    [*(f"{LIBRARIES}/{name}" for name in ("libc.so.6", "libssl.so.3")), "/usr/bin/python3.11", f"{CROSS}/libc.so.6"],
)
def test_expressions_and_ends_are_those_of_pyelftools(path):
    with Image.open(path) as image:
        table = read_table(image)
    fp_number, ra_number, _ = FP_AND_RA[table.machine]
    differ, kinds, failed = [], collections.Counter(), 0
    with Path(path).open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        parser = DWARFExprParser(dwarf.structs)
        for entry in dwarf.EH_CFI_entries():
            if not isinstance(entry, FDE) or entry.cie["return_address_register"] != ra_number:
                continue
            end = entry["initial_location"] + entry["address_range"]
            try:
                rules = entry.get_decoded().table
            except ValueError:  # of the message about an instruction that it does not know
                failed += 1
                continue
            for rule in rules:
                if not entry["initial_location"] <= rule["pc"] < end:
                    continue
                row, cfa = table.find(rule["pc"]), rule["cfa"]
                fp, ra = written(rule.get(fp_number), parser), written(rule.get(ra_number), parser)
                kinds[row.frame] += 1
                if ra == "undefined":
                    same = row.frame == tables.END
                elif row.frame == tables.END:
                    same = False
                elif cfa.expr is None:
                    base = NUMBERS[table.machine].get(cfa.reg, "another")
                    same = agrees(table.machine, row, base, cfa.offset, fp.replace("undefined", "u"), ra)
                else:
                    numbers = (row.slot,) if row.frame == tables.PLT else ()
                    ours = (row.frame, 8 * row.offset, *numbers)
                    same = (None if row.frame == tables.OTHER else ours) == expression(parser, cfa.expr)
                if not same:
                    differ.append((hex(rule["pc"]), rule, row))
    assert [*differ[:5], len(differ)] == [0]
    assert failed <= 1
    assert kinds[tables.SP] > 5000
    # Each is a kind that this file has; the end of a stack is where a thread or the program starts.
    assert kinds[tables.END] >= (path != f"{LIBRARIES}/libssl.so.3")
    if table.machine == "x86_64":
        assert kinds[tables.PLT] > 0
        assert kinds[tables.SIGNAL] == path.endswith("libc.so.6")
