"""Rows, histograms and stacks in every format; the account of a session."""

import csv
import io
import json
import re

import jsonschema
import pytest
from commandline import names
from hypothesis import given
from hypothesis import strategies as st

from usdtkit import trace
from usdtkit.cli import explain, main
from usdtkit.errors import UsageError
from usdtkit.model import PythonCaller, Truncated
from usdtkit.output import frames
from usdtkit.output.formats.json import flatten
from usdtkit.output.formats.table import cell_text
from usdtkit.output.sink import format_names, open_sink
from usdtkit.output.text import printable
from usdtkit.records import replace
from usdtkit.results import BUCKETS, LATENCY_MS, PID, TIME, Calls, Column, Histogram, Schema, StackSum, Table
from usdtkit.results.account import Account, account
from usdtkit.results.schemas import of_rows
from usdtkit.trace import CutStacks, Session, Stack, Summary, Unseen
from usdtkit.trace.aggregations import Distribution
from usdtkit.trace.memory import Frame
from usdtkit.trace.merging import PythonFrame
from usdtkit.trace.stacks import cut_among

COLUMNS = (PID, LATENCY_MS, Column("name", "NAME", "text", 6), Column("query", "QUERY", "text"))
ROW = {
    "time_ns": 1_000_000_007,
    "pid": 42,
    "latency_ns": 1_234_567,
    "name": "ada",
    "query": "select 1",
    "more": {"a": 1},
}
STACK = Column("stack", type="stack")
NAMED = Frame("native", "work", 0x14, "/usr/bin/shop", build_id="ab12", address=0x401234)
PYTHON = Frame("python", "Shop.order", file="/srv/shop.py", line=41)
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def summary(**counts):
    return Summary(**dict.fromkeys(Summary.__slots__, 0) | {"duration_s": 1.5, "unseen": (), "cut_stacks": ()} | counts)


def calls(*names, end=None):
    """A stack of native frames with these names."""
    return Calls(tuple(Frame("native", name) for name in names), end)


def written(form, *rows, columns=COLUMNS, blocks=(), end=None, in_blocks=False, timestamp=False):
    """What a sink writes of rows, or of the blocks of one interval."""
    stream = io.StringIO()
    sink = open_sink(form, stream)
    sink.begin(Schema("shop", columns, in_blocks or bool(blocks)))
    for row in rows:
        sink.row(row)
    if blocks:
        sink.interval(timestamp=timestamp)
    for block in blocks:
        sink.block(block)
    if end:
        sink.end(Account(end))
    sink.close()
    return stream.getvalue()


def test_a_table():
    text = written("table", ROW, {**ROW, "name": "grace hopper", "query": None}, end=summary(received=2))
    assert text.splitlines() == [
        "    PID   LAT(ms) NAME   QUERY",
        "     42      1.23 ada    select 1",
        "     42      1.23 grace hopper ?",
    ]


def test_what_is_too_long_moves_no_more_than_it_must():
    columns = (Column("name", "NAME", "string", 6), Column("calls", "CALLS", "count", 7), PID)
    rows = [{"name": name, "calls": 13, "pid": 42} for name in ("ada", "grace hop", "grace hopper lee")]
    assert written("table", *rows, columns=columns).splitlines() == [
        "NAME     CALLS     PID",
        "ada         13      42",
        "grace hop   13      42",
        "grace hopper lee 13 42",
    ]


def test_json_lines():
    unseen = Unseen("query", "postgres has no symbol", 3)
    text = written("json", {**ROW, "query": Truncated("sel")}, end=summary(hits=1, received=1, unseen=(unseen,)))
    header, event, last = map(json.loads, text.splitlines())
    assert header["schema"] == "usdtkit.shop/1"
    assert re.fullmatch(RFC_3339, header["time"])
    assert re.fullmatch(RFC_3339, event.pop("time"))
    assert event == {**ROW, "query": "sel", "query_truncated": True}
    said = {"what": "query", "why": "postgres has no symbol", "count": 3}
    counts = {"hits": 1, "received": 1, "cut_stacks": [], "unseen": [said], "duration_s": 1.5}
    assert last == {"summary": {**dict.fromkeys(Summary.__slots__, 0), **counts}}


def test_csv():
    first, second = csv.DictReader(io.StringIO(written("csv", ROW, {**ROW, "query": 'a,"b"\nc'}, end=summary())))
    assert list(first) == ["time", *ROW]
    assert (first["pid"], first["latency_ns"], first["query"]) == ("42", "1234567", "select 1")
    assert json.loads(first["more"]) == {"a": 1}
    assert second["query"] == 'a,"b"\\x0ac'


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_a_string_is_no_formula_in_a_spreadsheet(formula):
    assert next(csv.DictReader(io.StringIO(written("csv", {**ROW, "query": formula}))))["query"] == f"'{formula}"


def test_a_negative_number_stays_a_number_in_csv():
    assert next(csv.DictReader(io.StringIO(written("csv", {**ROW, "query": -1}))))["query"] == "-1"


def test_csv_of_rows_of_several_shapes():
    columns = (Column("spec"), Column("key", optional=True), *BUCKETS)
    blocks = [Table([{"spec": "a", "key": "x", "count": 2}]), Histogram(LATENCIES, "size", {"spec": "b"})]
    first, *others = csv.DictReader(io.StringIO(written("csv", blocks=blocks, columns=columns)))
    assert list(first) == ["time", "time_ns", "spec", "key", "count", "value", "low", "high"]
    assert (first["key"], first["count"], first["low"]) == ("x", "2", "")
    assert [(row["spec"], row["key"], row["value"], row["low"], row["count"]) for row in others] == [
        ("b", "", "size", "0", "1"),
        ("b", "", "size", "576", "2"),
        ("b", "", "size", "768", "1"),
    ]


def test_csv_without_rows_is_empty():
    assert written("csv") == ""


def test_what_only_a_table_shows():
    columns = (PID, Column("text", "ARGUMENTS", table_only=True))
    row = {"pid": 42, "text": "a=1"}
    assert "a=1" in written("table", row, columns=columns)
    assert json.loads(written("json", row, columns=columns).splitlines()[1]) == {"pid": 42}
    assert written("csv", row, columns=columns) == "pid\n42\n"


LATENCIES = Distribution()
for nanoseconds in (0, 600, 606, 794):
    LATENCIES.add(nanoseconds)


def test_a_histogram_in_the_table():
    table = written("table", blocks=[Histogram(LATENCIES, labels={"order": "a\x1b", "status": 201})], columns=())
    assert table.startswith("\norder=a\\x1b status=201\n")
    assert "latency : count" in table
    assert "512 ns .. 1.02 us  : 3 " in table
    assert table.endswith("\ncount 4, average 500 ns, total 2 us, p50 592 ns, p90 784 ns, p99 784 ns\n")


def test_a_histogram_of_something_else_than_a_duration():
    assert "512 .. 1024" in written("table", blocks=[Histogram(LATENCIES, "size")])


def test_a_histogram_as_json():
    _, line = written("json", blocks=[Histogram(LATENCIES, labels={"order": "a"})]).splitlines()
    histogram = json.loads(line)
    assert histogram.pop("time")
    assert histogram.pop("time_ns")
    assert histogram == {
        "order": "a",
        "value": "latency_ns",
        "count": 4,
        "sum": 2000,
        **{"p50": 592, "p90": 784, "p99": 784},
        "buckets": [
            {"low": 0, "high": 1, "count": 1},
            {"low": 576, "high": 608, "count": 2},
            {"low": 768, "high": 800, "count": 1},
        ],
    }


def test_a_histogram_as_csv():
    text = written("csv", blocks=[Histogram(LATENCIES, labels={"order": "a"})])
    assert [(row["order"], row["low"], row["high"], row["count"]) for row in csv.DictReader(io.StringIO(text))] == [
        ("a", "0", "1", "1"),
        ("a", "576", "608", "2"),
        ("a", "768", "800", "1"),
    ]


@pytest.mark.parametrize("timestamp", [False, True])
def test_blocks_have_a_heading_each(timestamp):
    columns = (Column("number", "N", "count", 3, left=True),)
    text = written("table", blocks=[Table([{"number": n}]) for n in (1, 2)], columns=columns, timestamp=timestamp)
    time = r"\n\d\d:\d\d:\d\d\n" if timestamp else ""
    assert re.fullmatch(rf"{time}\nN\n1\n\nN\n2\n", text)


def test_the_rows_of_a_block_have_its_time():
    text = written("json", blocks=[Table([{"number": 1}, {"number": 2}])], columns=())
    first, second = map(json.loads, text.splitlines()[1:])
    assert first.keys() == {"time", "time_ns", "number"}
    assert first["time_ns"] == second["time_ns"]


def test_rows_of_a_table_are_made_at_once():
    tables = [Table({"number": n} for _ in range(1)) for n in (1, 2)]
    assert [table.rows for table in tables] == [({"number": 1},), ({"number": 2},)]


def test_a_stack_in_a_row():
    stack = calls("in;ner", "out\x1b[2Jer\udc80")
    assert names(in_json({"stack": stack})["stack"]) == ["in;ner", "out\\x1b[2Jer\\x80"]
    assert written("csv", {"stack": stack}, columns=(STACK,)) == "stack\nout\\x1b[2Jer\\x80;in:ner\n"
    assert written("table", {"pid": 42, "stack": stack}, columns=(PID, STACK)).splitlines()[1:] == [
        "     42",
        "        in;ner",
        "        out\\x1b[2Jer\\x80",
    ]


def in_json(row, column=STACK):
    """The object that JSON Lines have of a row with a stack, after it was found to be as its schema says."""
    written_row = json.loads(written("json", row, columns=(column,)).splitlines()[1])
    jsonschema.validate(written_row, of_rows(Schema("shop", (column,))))
    return written_row


def test_frames_as_objects():
    nameless = Frame("jit", offset=0x10, address=0x7F0000000010)
    row = in_json({"stack": Calls((NAMED, PYTHON, nameless))})
    nothing = dict.fromkeys(("name", "kind", "file", "line", "module", "offset", "build_id"))
    assert row == {
        "stack": [
            nothing | {"kind": "native", "name": "work", "module": "/usr/bin/shop", "offset": 0x14, "build_id": "ab12"},
            nothing | {"kind": "python", "name": "Shop.order", "file": "/srv/shop.py", "line": 41},
            nothing | {"kind": "jit", "offset": 0x10},
        ]
    }
    addresses = replace(STACK, addresses=True)
    (frame,) = in_json({"stack": Calls((NAMED,))}, addresses)["stack"]
    assert frame["address"] == 0x401234
    assert in_json({"stack": None}) == {"stack": None}


def test_a_stack_that_is_cut_says_why():
    cut = calls("work", "main", end="unreadable memory")
    assert in_json({"stack": cut})["stack_end"] == "unreadable memory"
    assert "stack_end" not in in_json({"stack": calls("work", end="")})
    assert written("csv", {"stack": cut}, columns=(STACK,)) == "stack\n[cut: unreadable memory];main;work\n"
    assert written("folded", {"stack": cut}, columns=(STACK,)) == "[cut: unreadable memory];main;work 1\n"
    lines = written("table", {"pid": 42, "stack": cut}, columns=(PID, STACK)).splitlines()
    assert lines[-2:] == ["        main", "        [cut: unreadable memory]"]
    assert "`[cut: unreadable memory]" not in written("markdown", {"stack": calls("work", end="")}, columns=(STACK,))


class Memory:
    """An address space that has one function at all addresses."""

    def frame(self, address, at):
        return Frame("native", EVALUATION if address == 0x20 else f"f{address:x}", 0, address=address)


EVALUATION = "_PyEval_EvalFrameDefault"
MIXED = Stack(
    *(1, (0x10, 0x20, 0x30), [0], Memory()),
    native_end="unreadable memory",
    python=[PythonFrame(PYTHON, is_entry=True)],
    python_end="",
)


@pytest.mark.parametrize(
    ("kind", "shown", "end"),
    [
        ("", ["f10", "Shop.order (shop.py:41)", "f30", "[cut: unreadable memory]"], "unreadable memory"),
        ("native", ["f10", EVALUATION, "f30", "[cut: unreadable memory]"], "unreadable memory"),
        ("python", ["Shop.order (shop.py:41)"], ""),
    ],
)
def test_frames_of_one_kind(kind, shown, end):
    column = replace(STACK, frames=kind)
    assert written("csv", {"stack": MIXED}, columns=(column,)) == f"stack\n{';'.join(reversed(shown))}\n"
    assert written("folded", {"stack": MIXED}, columns=(column,)) == f"{';'.join(reversed(shown))} 1\n"
    assert written("table", {"stack": MIXED}, columns=(column,)).splitlines()[-len(shown) :] == [
        f"        {label}" for label in shown
    ]
    row = in_json({"stack": MIXED}, column)
    labels = [frame["name"] if frame["kind"] == "native" else "Shop.order (shop.py:41)" for frame in row["stack"]]
    assert (labels, row.get("stack_end", "")) == ([label for label in shown if not label.startswith("[")], end)
    assert frames.common([MIXED], kind) == frames.of_kind(MIXED, kind)


def test_a_stack_without_frames_of_a_kind_says_so():
    column = replace(STACK, frames="python")
    assert written("folded", {"stack": calls("work", "main")}, columns=(column,)) == "[no python frames] 1\n"
    assert in_json({"stack": calls("work", "main")}, column) == {"stack": []}
    assert frames.labels(None, kind="python") == (frames.NO_STACK,)
    assert frames.labels(Calls((PYTHON,)), kind="native") == ("[no native frames]",)


def test_why_a_stack_is_cut():
    ends = ((None, None, None), ("", None, ""), ("", "a", "a"), ("b", "a", "b"), ("a", "", "a"))
    stacks = [Stack(1, (0x10,), [0], Memory(), native_end=native, python_end=python) for native, python, _ in ends]
    assert [stack.end for stack in stacks] == [end for _, _, end in ends]
    assert cut_among(stacks) == (CutStacks("a", 2), CutStacks("b", 1))


def test_what_stacks_with_the_same_labels_have_in_common():
    other = NAMED._replace(offset=0x20, module="/usr/sbin/shop")
    both = frames.common([Calls((NAMED, PYTHON), "a"), Calls((other, PYTHON), "a")])
    assert both == Calls((Frame("native", "work", build_id="ab12", address=0x401234), PYTHON), "a")
    assert frames.common([None]) is None


def test_a_stack_within_a_line_of_a_table():
    column = Column("stack", "CALLER", "stack", show=lambda labels: labels[0])
    assert written("table", {"stack": calls("work", "main")}, columns=(column,)).splitlines() == ["CALLER", "work"]


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(0, 2**64))
def test_frames_and_weight_come_back_from_folded_lines(labels, weight):
    (line,) = written("folded", blocks=[StackSum(calls(*labels), weight, {})], columns=(STACK,)).splitlines()
    assert line.isprintable()
    folded, _, number = line.rpartition(" ")
    assert len(folded.split(";")) == len(labels)
    assert int(number) == weight


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a;b", "a:b"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\udcff", "\\xff"),
        ("fold<a, b>(int)", "fold<a, b>(int)"),
    ],
)
def test_hostile_names_in_folded_lines(name, shown):
    assert written("folded", blocks=[StackSum(calls(name, "main"), 1, {})], columns=(STACK,)) == f"main;{shown} 1\n"


def test_folded_lines_of_slow_calls():
    columns = (Column("comm", type="text"), LATENCY_MS, STACK)
    row = {"comm": "shop", "latency_ns": 31_000, "stack": calls("work", "main")}
    assert written("folded", row, {**row, "stack": None}, columns=columns) == "shop;main;work 31\nshop;[no stack] 31\n"


@pytest.mark.parametrize("form", ["folded", "chrome"])
def test_results_that_a_format_cannot_show(form):
    with pytest.raises(UsageError, match="usdtkit shop"):
        written(form)


def test_a_chrome_trace_of_entries_and_returns():
    columns = (TIME, PID, Column("method", role="name"), Column("flow", role="phase"))
    rows = [
        {"time_ns": time, "pid": 1, "tid": 2, "method": "pa\x1by", "flow": flow}
        for time, flow in ((1_000, "->"), (3_500, "<-"))
    ]
    begin, end = json.loads(written("chrome", *rows, columns=columns))
    assert begin == {"name": "pa\\x1by", "pid": 1, "tid": 2, "ph": "B", "ts": 1.0}
    assert (end["ph"], end["ts"]) == ("E", 3.5)
    assert written("chrome", columns=columns) == "[]\n"


def test_a_chrome_trace_leaves_out_ends_without_a_beginning():
    steps = (("<-", "before"), ("->", "outer"), ("<-", "unseen"), ("->", "inner"), ("<-", "inner"), ("<-", "outer"))
    columns = (TIME, Column("method", role="name"), Column("phase", role="phase"))
    rows = [
        {"time_ns": time_ns, "pid": 1, "tid": tid, "method": name, "phase": phase}
        for time_ns, (phase, name) in enumerate([*steps, ("<-", "outer")])
        for tid in (1, 2)
    ]
    events = json.loads(written("chrome", *rows, columns=columns))
    for tid in (1, 2):
        assert [(event["ph"], event["name"]) for event in events if event["tid"] == tid] == [
            *(("B", "outer"), ("B", "inner"), ("E", "inner"), ("E", "outer"))
        ]


def test_a_chrome_trace_of_latencies():
    row = {"time_ns": 9_000, "pid": 1, "tid": 2, "latency_ns": 4_000, "probe": "open"}
    (call,) = json.loads(written("chrome", row, columns=(TIME, LATENCY_MS)))
    assert call == {"name": "open", "pid": 1, "tid": 2, "ph": "X", "ts": 5.0, "dur": 4.0}
    (call,) = json.loads(written("chrome", row, columns=(replace(TIME, role="start"), LATENCY_MS)))
    assert (call["ts"], call["dur"]) == (9.0, 4.0)


def test_a_cell_that_a_column_shows_by_itself_is_printable():
    columns = (Column("data", "DATA", show=str),)
    assert written("table", {"data": "\x1b[2J\nline\x9b"}, columns=columns) == "DATA\n\\x1b[2J\nline\\x9b\n"


def test_every_csv_row_shows_where_a_string_is_cut():
    rows = [ROW, {**ROW, "query": Truncated("sel")}]
    heading, *lines = csv.reader(io.StringIO(written("csv", *rows)))
    assert [dict(zip(heading, line, strict=True))["query"] for line in lines] == ["select 1", "sel…"]
    assert [*csv.reader(io.StringIO(written("csv", *rows[::-1])))] == [heading, *lines[::-1]]


def test_formats_are_found_by_their_modules():
    assert {"table", "json", "csv", "folded", "chrome"} <= set(format_names())
    for name in ("nonsense", "no.such", ""):
        with pytest.raises(UsageError, match="no output format") as raised:
            open_sink(name, io.StringIO())
        assert "csv" in raised.value.hint


def test_the_schema_of_rows():
    columns = (
        *(TIME, Column("query", "QUERY", "text", meaning="the statement")),
        Column("pid", type="integer", optional=True),
        Column("shown", "SHOWN", table_only=True),
        Column("arguments", type="list", fields=(Column("name"), Column("type", values=("u64", "str")))),
        Column("owner", type="integer", nullable=True),
    )
    schema = of_rows(Schema("shop", columns, version=2))
    assert schema["title"] == "usdtkit.shop/2"
    assert schema["required"] == ["time", "time_ns", "query", "arguments", "owner"]
    properties = schema["properties"]
    assert set(properties) == {"time", "time_ns", "query", "query_truncated", "pid", "arguments", "owner"}
    assert properties["query"] == {"type": ["string", "null"], "description": "the statement"}
    assert properties["owner"] == {"type": ["integer", "null"]}
    assert properties["arguments"]["items"]["properties"]["type"]["enum"] == ["u64", "str"]
    assert schema["additionalProperties"] is False


def test_schemas_as_files(tmp_path, capsys):
    assert main(["schema", "--all", str(tmp_path)]) == 0
    files = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert {"common", "explain", "doctor", "trace", "gethostlatency"} <= files.keys()
    assert main(["schema", "gethostlatency"]) == 0
    assert json.loads(capsys.readouterr().out) == files["gethostlatency"]
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == files["common"]
    assert main(["schema", "cache"]) == 4
    assert main(["schema", "trace", "--all", str(tmp_path)]) == 2
    assert main(["schema", "--all", "/dev/null/x"]) == 1


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "received 0, lost 0"),
        ({"received": 1234567, "lost": 1000}, "received 1,234,567, lost 1,000"),
        ({"received": 9, "files": 1, "processes": 1}, "received 9, lost 0, from 1 file in 1 process"),
        ({"received": 9, "files": 2, "processes": 1000}, "received 9, lost 0, from 2 files in 1,000 processes"),
        ({"processes": 2}, "received 0, lost 0, from 2 processes"),
        ({"hits": 9, "received": 9}, "received 9, lost 0"),
        ({"hits": 4800}, "received 0 of 4,800 hits, lost 0"),
        ({"hits": 9, "lost": 9}, "received 0, lost 9"),
        ({"received": 1, "full": 2}, "received 1, lost 0, 2 not counted, table full"),
        ({"overflow": 3, "unreadable": 4}, "received 0, lost 0, 3 abandoned, nested too deep, 4 arguments unreadable"),
        ({"unmatched": 5, "abandoned": 6}, "received 0, lost 0, 5 ends without a start, 6 starts without an end"),
    ],
)
def test_the_account_of_a_session(counts, line):
    assert account(summary(**counts)) == line


def test_the_account_says_what_is_not_shown():
    many = Unseen("prepared execution", "mariadbd has no symbol", 4800)
    one = Unseen("query", "begun before the trace", 1)
    assert account(summary(received=2, unreadable=1, unseen=(many, one, Unseen("entry", "none", 2)))) == (
        "received 2, lost 0, 1 arguments unreadable; 4,800 prepared executions not shown: mariadbd has no symbol; "
        "1 query not shown: begun before the trace; 2 entries not shown: none"
    )


def test_the_account_says_which_stacks_are_cut():
    cut = (CutStacks("code without tables", 1000), CutStacks("the limit of 127 frames", 2))
    assert account(summary(received=2, stacks=4031, cut_stacks=cut)) == (
        "received 2, lost 0; 1,002 of 4,031 stacks are cut: 1,000 at code without tables, 2 at the limit of 127 frames"
    )
    assert account(summary(stacks=1, cut_stacks=(CutStacks("unreadable memory", 1),))).endswith(
        "; 1 of 1 stack is cut: 1 at unreadable memory"
    )
    said = Account(summary(stacks=4031, cut_stacks=cut)).values()
    assert said["cut_stacks"] == [{"why": each.why, "count": each.count} for each in cut]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "0 hits, lost 0"),
        ({"hits": 1, "files": 1, "processes": 1}, "1 hit, lost 0, from 1 file in 1 process"),
        ({"hits": 1994, "full": 2}, "1,994 hits, lost 0, 2 not counted, table full"),
        ({"hits": 3, "received": 2}, "received 2, lost 0"),
    ],
)
def test_the_account_of_what_is_summed_up_in_the_kernel(counts, line):
    assert Account(summary(**counts), in_kernel=True).line() == line


def test_the_account_names_the_reasons():
    nothing = Account(summary(unarmed=1), ["process 42 is not armed"], unexplained_ends=0)
    assert nothing.line() == "received 0, lost 0: process 42 is not armed"


def test_nested_rows_are_flattened_with_their_marks():
    assert flatten({"pid": 1, "arguments": {"text": Truncated("a"), "data": b"\x01"}}) == {
        "pid": 1,
        "arguments": {"text": "a", "text_truncated": True, "data": "01"},
    }


def test_times():
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", cell_text(TIME)(1_000_000_007))


def test_labels_of_frames():
    assert frames.label(NAMED) == "work"
    assert frames.label(NAMED, offsets=True) == "work+0x14"
    assert frames.label(NAMED, addresses=True) == "0x0000000000401234 work"
    nameless = Frame("native", "", 0x1234, "/usr/lib/libssl.so.3", address=0x7F001234)
    assert frames.label(nameless, offsets=True) == "libssl.so.3+0x1234"
    assert frames.label(Frame("native", offset=0x7F001234, address=0x7F001234)) == "0x7f001234"
    assert frames.label(Frame("native", "main.serve", 0x14, file="/src/main.go", line=7)) == "main.serve"
    assert frames.label(Frame("native", "main.serve", 0x14, file="/src/main.go", line=7), offsets=True) == (
        "main.serve+0x14 (main.go:7)"
    )
    assert frames.labels(None) == (frames.NO_STACK,)


def test_labels_of_python_functions():
    for offsets in (False, True):
        assert frames.label(PYTHON, offsets=offsets) == "Shop.order (shop.py:41)"
    assert frames.label(PYTHON, addresses=True) == f"{'':18} Shop.order (shop.py:41)"
    assert frames.label(PYTHON._replace(file="<frozen importlib._bootstrap>", line=None)) == (
        "Shop.order (<frozen importlib._bootstrap>)"
    )
    assert frames.label(PYTHON._replace(file="", line=None)) == "Shop.order"
    assert frames.label(PYTHON._replace(name="")) == "? (shop.py:41)"
    assert written("folded", {"stack": Calls((NAMED, PYTHON))}, columns=(STACK,)) == "Shop.order (shop.py:41);work 1\n"


@pytest.mark.parametrize(
    ("caller", "text", "row"),
    [
        (
            PythonCaller("Shop.order", "/srv/shop.py", 41),
            "Shop.order (shop.py:41)",
            {"function": "Shop.order", "file": "/srv/shop.py", "line": 41},
        ),
        (
            PythonCaller("\x1b[2J", "<string>", None),
            "\\x1b[2J (<string>)",
            {"function": "\x1b[2J", "file": "<string>", "line": None},
        ),
        (PythonCaller("", "", None), "?", {"function": None, "file": None, "line": None}),
        (None, "?", None),
    ],
)
def test_the_python_function_that_called(caller, text, row):
    column = Column("caller", "CALLER", "pyframe")
    assert in_json({"caller": caller}, column) == {"caller": row}
    assert in_json({"values": {"a": caller}}, Column("values", type="object")) == {"values": {"a": row}}
    assert written("table", {"caller": caller}, columns=(column,)) == f"CALLER\n{text}\n"
    assert written("csv", {"caller": caller}, columns=(column,)) == f"caller\n{'' if caller is None else text}\n"
    assert text in written("markdown", {"caller": caller}, columns=(column,))


def explained(form):
    """What --explain writes of a session with a clock."""
    stream = io.StringIO()
    with Session(offline=True) as session:
        session.source(trace.clock(99)).count("comm")
        sink = open_sink(form, stream)
        explain.explain(session, sink, ())
        sink.close()
    return stream.getvalue()


def test_the_plan_of_a_clock():
    heading, row = explained("table").splitlines()
    assert heading.split()[:6] == ["KIND", "OFFSET", "SEMAPHORE", "COST", "NAME", "FILE"]
    assert row.split() == ["clock", "-", "-", "interrupt", "clock:99", "-", "-"]
    site = json.loads(explained("json").splitlines()[-1])
    assert (site["kind"], site["name"], site["path"], site["cost"]) == ("clock", "clock:99", "", "interrupt")


def test_markdown():
    text = written("markdown", ROW, {**ROW, "name": "grace hopper", "query": None}, end=summary(received=2))
    assert text.splitlines() == [
        "| PID | LAT(ms) | NAME           | QUERY      |",
        "| --: | ------: | -------------- | ---------- |",
        "|  42 |    1.23 | `ada`          | `select 1` |",
        "|  42 |    1.23 | `grace hopper` | `?`        |",
        "",
        "received 2, lost 0",
    ]
    assert written("markdown", end=summary()) == "received 0, lost 0\n"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("a|b", "`a\\|b`"),
        ("a\\|b", "`a\\\\x7cb`"),
        ("a\nb", "`a\\x0ab`"),
        ("\x1b[2J\u202e\udcff", "`\\x1b[2J\\u202e\\xff`"),
        ("a`b``c", "```a`b``c```"),
        ("`", "`` ` ``"),
        (" a ", "`  a  `"),
        ("@ada www.shop.test <img src=x> [a](b) #1", "`@ada www.shop.test <img src=x> [a](b) #1`"),
        (Truncated("sel"), "`sel…`"),
        ("", ""),
        (" ", ""),
    ],
)
def test_a_hostile_string_in_markdown(text, cell):
    columns = (PID, Column("query", "QUERY", "text"))
    *_, row = written("markdown", {"pid": 42, "query": text}, columns=columns).splitlines()
    assert row.split(" | ", 1)[1:] == ([f"{cell:<5} |"] if cell else [])


@given(st.text())
def test_no_string_leaves_its_cell_in_markdown(text):
    columns = (PID, Column("query", "QUERY", "text"), Column("calls", "CALLS", "count"))
    lines = written("markdown", {"pid": 42, "query": text, "calls": 7}, columns=columns).splitlines()
    assert len(lines) == 3
    assert lines[2].isprintable()
    shown = 3 if printable(text).strip() else 2
    # A bar ends a cell unless a backslash is before it, which must not be escaped by another one.
    assert len(re.split(r"(?<!\\)\|", lines[2])) == shown + 2
    assert r"\\|" not in lines[2]


def test_histograms_in_markdown():
    blocks = [Histogram(LATENCIES, labels={"order": "a|*"}), Histogram(LATENCIES, "size")]
    assert written("markdown", blocks=blocks, columns=(), end=summary()).splitlines() == [
        "`order=a\\|*`",
        "",
        "|           latency | count |",
        "| ----------------: | ----: |",
        "|      0 ns .. 1 ns |     1 |",
        "| 512 ns .. 1.02 us |     3 |",
        "",
        "count 4, average 500 ns, total 2 us, p50 592 ns, p90 784 ns, p99 784 ns",
        "",
        "|        size | count |",
        "| ----------: | ----: |",
        "|      0 .. 1 |     1 |",
        "| 512 .. 1024 |     3 |",
        "",
        "count 4, average 500, total 2000, p50 592, p90 784, p99 784",
        "",
        "received 0, lost 0",
    ]


def test_tables_and_stacks_in_markdown():
    columns = (Column("bytes", type="count"), Column("owner", type="integer", optional=True), STACK)
    sums = [StackSum(calls("in|ner", "main"), 31, {"bytes": 31}), StackSum(None, 7, {"bytes": 7})]
    assert written("markdown", blocks=sums, columns=columns).splitlines() == [
        "| bytes | stack          |",
        "| ----: | -------------- |",
        "|    31 | `in\\|ner;main` |",
        "|     7 | `[no stack]`   |",
    ]
    columns = (Column("number", "N", "count", 3, left=True),)
    tables = [Table([{"number": 1}], "<b>"), Table([{"number": 2}])]
    text = written("markdown", blocks=tables, columns=columns, timestamp=True)
    assert re.fullmatch(
        r"`?\d\d:\d\d:\d\d`?\n\n`<b>`\n\n\| N   \|\n\| --- \|\n\| 1   \|\n\n\| N .*\n.*\n\| 2   \|\n", text
    )


def test_a_cell_of_several_lines_in_markdown():
    columns = (Column("query", "QUERY", "text", show=lambda text: "\n" + text.replace(";", "\n")),)
    assert written("markdown", {"query": "a|;b"}, columns=columns).splitlines()[2] == "| `a\\|`<br>`b` |"
