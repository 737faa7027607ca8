"""Rows as a table, JSON Lines and CSV; the account of a session."""

import csv
import io
import json
import re

import pytest

from usdtkit.bpf.layout import Truncated
from usdtkit.output.report import LATENCY_MS, PID, Column, Report, account, clock, flatten, milliseconds
from usdtkit.trace import Summary
from usdtkit.trace.aggregations import Distribution

COLUMNS = [PID, LATENCY_MS, Column("NAME", "name", 6), Column("QUERY", "query", 0)]
ROW = {
    "time_ns": 1_000_000_007,
    "pid": 42,
    "latency_ns": 1_234_567,
    "name": "ada",
    "query": "select 1",
    "more": {"a": 1},
}
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"


def summary(**counts):
    return Summary(**dict.fromkeys(Summary.__slots__, 0) | {"duration_s": 1.5} | counts)


def written(capsys, form, *rows, end=None):
    report = Report("shop", COLUMNS, form)
    for row in rows:
        report.row(row)
    if end:
        report.summary(end)
    return capsys.readouterr()


def test_a_table(capsys):
    out, err = written(capsys, "table", ROW, {**ROW, "name": "grace hopper", "query": None}, end=summary(received=2))
    assert out.splitlines() == [
        "    PID   LAT(ms) NAME   QUERY",
        "     42      1.23 ada    select 1",
        "     42      1.23 grace hopper ?",
    ]
    assert err == "received 2, lost 0\n"


def test_what_is_too_long_moves_no_more_than_it_must(capsys):
    report = Report("shop", [Column("NAME", "name", 6), Column("CALLS", "calls", 7, right=True), PID])
    for name in ("ada", "grace hop", "grace hopper lee"):
        report.row({"name": name, "calls": 13, "pid": 42})
    assert capsys.readouterr().out.splitlines() == [
        "NAME     CALLS     PID",
        "ada         13      42",
        "grace hop   13      42",
        "grace hopper lee 13 42",
    ]


def test_json_lines(capsys):
    out, err = written(capsys, "json", {**ROW, "query": Truncated("sel")}, end=summary(hits=1, received=1))
    header, event, last = map(json.loads, out.splitlines())
    assert header["schema"] == "usdtkit.shop/1"
    assert re.fullmatch(RFC_3339, header["time"])
    assert re.fullmatch(RFC_3339, event.pop("time"))
    assert event == {**ROW, "query": "sel", "query_truncated": True}
    assert last == {"summary": {**dict.fromkeys(Summary.__slots__, 0), "hits": 1, "received": 1, "duration_s": 1.5}}
    assert err == ""


def test_csv(capsys):
    out, err = written(capsys, "csv", ROW, {**ROW, "query": 'a,"b"\nc'}, end=summary(received=2))
    first, second = csv.DictReader(io.StringIO(out))
    assert list(first) == ["time", *ROW]
    assert (first["pid"], first["latency_ns"], first["query"]) == ("42", "1234567", "select 1")
    assert json.loads(first["more"]) == {"a": 1}
    assert second["query"] == 'a,"b"\\x0ac'
    assert err == "received 2, lost 0\n"


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_a_string_is_no_formula_in_a_spreadsheet(formula, capsys):
    out, _ = written(capsys, "csv", {**ROW, "query": formula})
    assert next(csv.DictReader(io.StringIO(out)))["query"] == f"'{formula}"


def test_a_negative_number_stays_a_number_in_csv(capsys):
    out, _ = written(capsys, "csv", {**ROW, "query": -1})
    assert next(csv.DictReader(io.StringIO(out)))["query"] == "-1"


def test_csv_without_rows_is_empty(capsys):
    assert written(capsys, "csv").out == ""


@pytest.fixture
def latencies():
    return Distribution({0: 1, 10: 3}, sum=2000)


def test_a_histogram_in_the_table(capsys, latencies):
    Report("shop", []).histogram(latencies, order="a\x1b", status=201)
    table = capsys.readouterr().out
    assert table.startswith("\norder=a\\x1b status=201\n")
    assert "latency : count" in table
    assert "512 ns .. 1.02 us" in table


def test_a_histogram_of_something_else_than_a_duration(capsys, latencies):
    Report("shop", []).histogram(latencies, "size")
    assert "512 .. 1024" in capsys.readouterr().out


def test_a_histogram_as_json(capsys, latencies):
    Report("shop", [], "json").histogram(latencies, order="a")
    _, line = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "order": "a",
        "value": "latency_ns",
        "count": 4,
        "sum": 2000,
        "buckets": [{"low": 0, "high": 1, "count": 1}, {"low": 512, "high": 1024, "count": 3}],
    }


def test_a_histogram_as_csv(capsys, latencies):
    Report("shop", [], "csv").histogram(latencies, order="a")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["order"], row["low"], row["high"], row["count"]) for row in rows] == [
        ("a", "0", "1", "1"),
        ("a", "512", "1024", "3"),
    ]


@pytest.mark.parametrize("timestamp", [False, True])
def test_blocks_have_a_heading_each(capsys, timestamp):
    report = Report("shop", [Column("N", "number", 3)], in_blocks=True)
    for number in (1, 2):
        report.begin_block(timestamp=timestamp)
        report.block([{"number": number}])
    time = r"\n\d\d:\d\d:\d\d\n" if timestamp else ""
    assert re.fullmatch(rf"{time}\nN\n1\n{time}\nN\n2\n", capsys.readouterr().out)


def test_the_rows_of_a_block_have_its_time(capsys):
    report = Report("shop", [], "json", in_blocks=True)
    report.begin_block()
    report.block([{"number": 1}, {"number": 2}])
    first, second = map(json.loads, capsys.readouterr().out.splitlines()[1:])
    assert first.keys() == {"time", "time_ns", "number"}
    assert first["time_ns"] == second["time_ns"]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "received 0, lost 0"),
        ({"received": 1234567, "lost": 1000}, "received 1,234,567, lost 1,000"),
        ({"received": 1, "full": 2}, "received 1, lost 0, 2 not counted, table full"),
        ({"overflow": 3, "unreadable": 4}, "received 0, lost 0, 3 abandoned, nested too deep, 4 arguments unreadable"),
        ({"unmatched": 5, "abandoned": 6}, "received 0, lost 0, 5 ends without a start, 6 starts without an end"),
    ],
)
def test_the_account_of_a_session(counts, line):
    assert account(summary(**counts)) == line


def test_nested_rows_are_flattened_with_their_marks():
    assert flatten({"pid": 1, "arguments": {"text": Truncated("a"), "data": b"\x01"}}) == {
        "pid": 1,
        "arguments": {"text": "a", "text_truncated": True, "data": "01"},
    }


def test_times_and_latencies():
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", clock(1_000_000_007))
    assert milliseconds(50_528_000) == "50.53"
    assert milliseconds(0) == "0.00"
