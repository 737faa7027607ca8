"""Texts as keys, however long: sent once, counted by number, and each as it is; tables that begin anew."""

import os
from collections import Counter

import pytest

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import arg, buffer, cstr, interned, internedtexts


@pytest.fixture
def said(declare):
    return declare("interned:said", n="u64", text="str", data="bytes", pointer="u64")


def traced(session, probe):
    return session.usdt("interned:said", path=probe.path)


def test_texts_of_every_length(said):
    lengths = (0, 1, 62, 63, 64, 127, 128, 298, 299, 301, 4000)
    texts = ["x" * length + end for length in lengths for end in ("", "a", "b")]
    with trace.Session(pid=os.getpid(), string_size=300) as session:
        source = traced(session, said)
        strings = source.count(text=interned(cstr("text", 300)))
        data = source.count(data=interned(buffer("data", 300, 300)))
        both = source.sum("n", number=arg("n") % 2, text=interned("text"))
        session.start()
        for n in range(997):
            text = texts[n % len(texts)]
            said(n, text, text.encode().ljust(300, b"."), 0)
        sent = [texts[n % len(texts)] for n in range(997)]
        assert {key: count for (key,), count in strings.read().items()} == Counter(text[:300] for text in sent)
        assert {key: count for (key,), count in data.read().items()} == Counter(
            text.encode().ljust(300, b".")[:300] for text in sent
        )
        assert [isinstance(key, trace.Truncated) for (key,) in strings.read()].count(True) == 1
        sums = Counter()
        for n, text in enumerate(sent):
            sums[n % 2, text[:300]] += n
        assert both.read() == {key: amount for key, amount in sums.items() if amount}
        assert session.summary().unreadable == session.summary().full == 0


def test_what_a_pair_keeps(compile_c, ready):
    path = str(compile_c("pairs.c", "-O1", "-pthread"))
    process = ready([path, "((.)(.))", "97"])
    with trace.Session(pid=process.pid) as session:
        keep = {"serial": arg(1), "text": cstr(2, 40), "data": buffer(2, 7, 16), "number": interned(cstr(2, 40))}
        pair = session.pair(trace.usdt("nest:start"), trace.usdt("nest:end"), keep=keep)
        plain = pair.count("text", "data")
        tables = [
            pair.count(text=interned("text"), data=interned("data")),
            pair.count("number", data=interned("data")),
        ]
        session.start()
        process.stdin.close()
        assert list(session) == []
        expected = plain.read()
        assert len(expected) > 1
        assert [table.read() for table in tables] == [expected, expected]


def test_texts_that_are_alike(said):
    def step(state, byte):
        return ("digits", None if state == "digits" else 1) if chr(byte).isdigit() else ("", "byte")

    with trace.Session(pid=os.getpid()) as session:
        table = traced(session, said).count(text=interned("text", alike=trace.Scanner("", step)))
        session.start()
        for n in range(997):
            said(n, f"order {n + 7} of {n % 3 and 'ada'}", b"", 0)
        assert table.read() == {("order 7 of 0",): 333, ("order 8 of ada",): 664}


def test_texts_that_cannot_be_read(said):
    with trace.Session(pid=os.getpid()) as session:
        source = traced(session, said)
        table = source.count(text=interned(cstr("pointer")))
        session.start()
        for _ in range(97):
            said(1, "", b"", 0)
            said(2, "", b"", 8)
        assert table.read() == {(None,): 194}
        assert session.summary().unreadable == 97


def test_more_texts_than_are_remembered(said):
    """Those that had to go are sent again, and all are counted."""
    with trace.Session(pid=os.getpid(), capacity=40_000) as session:
        table = traced(session, said).count(text=interned("text"))
        session.start()
        for n in [*range(20_011), *range(997)]:
            said(n, f"text {n}", b"", 0)
            if n % 1000 == 0:
                list(session.drain())
        read = table.read()
        assert session.summary().full == 0
    assert read == {(f"text {n}",): 2 if n < 997 else 1 for n in range(20_011)}


def test_texts_that_a_table_names_are_kept(said, monkeypatch):
    """Also when the program has sent so many others since that it no longer knows them."""
    monkeypatch.setattr(internedtexts, "KEPT", 200)
    with trace.Session(pid=os.getpid(), capacity=97) as session:
        source = traced(session, said)
        table, sums = source.count(text=interned("text")), source.hist("n", text=interned("text"))
        session.start()
        for n in range(97):
            said(n, f"text {n}", b"", 0)
        first = table.delta(), sums.delta()
        for n in range(97, 997):
            said(n, f"text {n}", b"", 0)
            if n % 31 == 0:
                list(session.drain())
        assert first[0] == table.read() == {(f"text {n}",): 1 for n in range(97)}
        assert {key: values for key, values in sums.read().items() if values.count} == first[1]
        assert (table.delta(), sums.delta()) == ({}, {})


def test_more_new_texts_than_fit_are_counted_together(said):
    with trace.Session(pid=os.getpid(), string_size=1000, capacity=40_000) as session:
        table = traced(session, said).count(text=interned("text"))
        session.start()
        for n in range(9973):
            said(n, f"{n} " * 100, b"", 0)
        read = table.read()
        others = read.pop((trace.OTHER_TEXTS,))
        assert 0 < others < 9973
        assert set(read.values()) == {1} and len(read) == 9973 - others
        list(session.drain())
        said(1, "after", b"", 0)
        assert table.read()[("after",)] == 1


def test_a_table_that_begins_anew(said):
    with trace.Session(pid=os.getpid(), capacity=97) as session:
        source = traced(session, said)
        table, whole = source.stats("n", anew=True, text=interned("text")), source.stats("n", anew=True)
        session.start()
        assert table.delta() == {}
        for interval in range(1, 14):  # more keys in all than the table has room for
            for n in range(interval, interval + 31):
                said(n * interval, f"{n % 31} of {interval}", b"", 0)
            rows = table.delta()
            assert {key: row.max for (key,), row in rows.items()} == {
                f"{n % 31} of {interval}": n * interval for n in range(interval, interval + 31)
            }
            (row,) = whole.delta().values()
            assert (row.count, row.min, row.max) == (31, interval**2, interval * (interval + 30))
            assert row.sum == interval * sum(range(interval, interval + 31))
        # What is older than the last two intervals is kept nowhere, or a long trace would take all memory.
        assert sum(row.count for row in table.read().values()) == whole.read()[()].count == 31
        assert whole.read()[()].max == 13 * 43
        assert (table.delta(), table.read()) == ({}, {})
        assert session.summary().full == 0


def test_only_a_key_can_be_interned(said):
    with trace.Session(pid=os.getpid()) as session:
        traced(session, said).emit(text=interned("text"))
        with pytest.raises(UsageError, match="text is interned, and only a key can be"):
            session.program()
    with pytest.raises(UsageError, match="a scanner of 33 states"):
        trace.Scanner("0", lambda state, byte: (str(int(state) + 1), None))
    with trace.Session(pid=os.getpid()) as session:
        traced(session, said).count(n=interned("n"))
        with pytest.raises(UsageError, match="string"):
            session.program()
