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


def test_a_histogram_in_every_form(capsys):
    distribution = Distribution({0: 1, 10: 3}, sum=2000)
    Report("shop", [], "table").histogram("order\x1b", distribution)
    table = capsys.readouterr().out
    assert "order\\x1b" in table
    assert "512 ns .. 1.02 us" in table
    Report("shop", [], "json").histogram("order", distribution)
    _, line = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "histogram": "order",
        "buckets": [{"low_ns": 0, "high_ns": 1, "count": 1}, {"low_ns": 512, "high_ns": 1024, "count": 3}],
        "count": 4,
        "sum_ns": 2000,
    }


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, "received 0, lost 0"),
        ({"received": 1234567, "lost": 1000}, "received 1,234,567, lost 1,000"),
        ({"received": 1, "full": 2}, "received 1, lost 0, 2 not counted, table full"),
        ({"overflow": 3, "unreadable": 4}, "received 0, lost 0, 3 dropped, nested too deep, 4 arguments unreadable"),
        ({"unmatched": 5}, "received 0, lost 0"),
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
