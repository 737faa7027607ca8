"""Statements without their data: what is kept, what is hidden, in both dialects, also of text that was cut off."""

import time

import pytest

from usdtkit.model import Truncated, TruncatedBytes
from usdtkit.providers.sql import REMEMBERED, kind, normalise, shown

BOTH = [
    ("select * from t where id = 42", "select * from t where id = ?"),
    ("select 'ada', 1.5e-3, .5, 0x1F from t1", "select ?, ?, ?, ? from t1"),
    ("select  *\n\tfrom t ;", "select * from t"),
    ("select a from t where b in (1, 2,3) and c in ('x')", "select a from t where b in (?) and c in (?)"),
    ("insert into t values (1,'a'), (2, 'b'),(3,'c')", "insert into t values (?)"),
    ("update t set n = -5, m = n -1 where k > +3", "update t set n = ?, m = n -? where k > ?"),
    ("select 'it''s', x'4D', N'a' /* secret */ from t -- secret", "select ?, ?, ? from t"),
    ("select'a'from t", "select?"),  # quotes that touch a word: rather too little than a secret
    ("select 'open to the end", "select ?"),
    ("", ""),
    ("'", "?"),
    ("select /* open", "select"),
]
MYSQL = [
    (r"select 'a\'b', " '"c\\"d" from `t 1`', "select ?, ? from `t 1`"),
    ("select 1 # secret\nfrom t", "select ? from t"),
    ("select 5--1", "select ?--?"),
    ("/*!40101 set names utf8 */", "set names utf8"),
    ("/* a /* b */ select 1", "select ?"),
    ("create user 'ada'@'%' identified by 'lovelace'", "create user ?@? identified by ?"),
    ("select _utf8mb4'x' from 1st", "select ? from ?"),
    ("select '", "select ?"),
    ("select 'a\\", "select ?"),
    ("select /*!99999 secret */ 1", "select ?"),
    ("select /*!99999 'x */ secret' */ 1", "select ?"),
    ("select /*!999999 'secret' */ 1", "select ?"),
    ("select /*!99999 secret", "select"),
    ("select /*!50000 a, */ 1", "select a, ?"),
    ("select /*!50000 'a' */ from t", "select ? from t"),
    ("select /*!50000 'a */ secret' */ from t", "select ?"),
    ("select /*! -- */ secret\n from t", "select ?"),
    ("select /*M!100100 'a' */ from t", "select ? from t"),
    ("select /*M! b, 'a */ secret' */ from t", "select ?"),
    ("select /*!50000 a /* secret */ b */ from t", "select ?"),
    ("select /*!50000 a /*!80000 b */ c */ from t", "select ?"),
    ("select 1 --\u00a0'a\nsecret' from t", "select ? -- ? from t"),
    ("select \u2018secret\u2019, \u201csecret\u201d", "select ?, ?"),
    ("select 'a\0secret' from t", "select ? from t"),
    ("select 1 -- c\0, 'a\n secret' from t", "select ? \0, ? from t"),
    ("select 1 # c\0, 'a\n secret' from t", "select ? \0, ? from t"),
]
POSTGRESQL = [
    (r"select 'a\' from t where b = 'c'", "select ? from t where b = ?"),
    (r"select E'a\'b' from t", "select ? from t"),
    ('select "Id" from "T" where a = $1', 'select "Id" from "T" where a = $1'),
    ("select $$ it's $$, $tag$ $$ ' $tag$ from t", "select ?, ? from t"),
    ("/* a /* b */ secret */ select 1", "select ?"),
    ("select a #> b from t --1", "select a #> b from t"),
    (r"select U&'d\0061' from t", "select ? from t"),
    ("create role ada password 'lovelace'", "create role ada password ?"),
    ("do $body$ secret", "do ?"),
    ("select E'a'\n'b\\' secret' from t", "select ? from t"),
    ("select E'a' -- c\n\n -- d\n 'b\\' secret' from t", "select ? from t"),
    ("select E'a'\r'\\'', 'b' from t", "select ?, ? from t"),
    ("select 1 -- c\r, 'a\n secret' from t", "select ? , ? from t"),
    ("select E'a' 'b\\' from t", "select ? ? from t"),
    ("select E'a' -- 'b\\'", "select ?"),
    ("select 'a'\n'b\\' from t", "select ? ? from t"),
    ("select $$a$$secret$$b$$", "select ?"),
    ("select $a.b$secret$a.b$", "select ?"),
]


@pytest.mark.parametrize(("text", "shape"), BOTH)
@pytest.mark.parametrize("dialect", ["mysql", "postgresql"])
def test_both_dialects(text, shape, dialect):
    assert normalise(text, dialect) == shape


@pytest.mark.parametrize(("text", "shape"), MYSQL)
def test_mysql(text, shape):
    assert normalise(text, "mysql") == shape


@pytest.mark.parametrize(("text", "shape"), POSTGRESQL)
def test_postgresql(text, shape):
    assert normalise(text, "postgresql") == shape


@pytest.mark.parametrize("dialect", ["mysql", "postgresql"])
def test_text_that_was_cut_stays_marked_and_shows_nothing_of_what_it_was_cut_in(dialect):
    text = "select a, 42 from t where token = 's3cr' and b = 1 /* pass */"
    for length in range(len(text)):
        shape = normalise(Truncated(text[:length]), dialect)
        assert isinstance(shape, Truncated)
        assert not any(word in shape for word in ("4", "s3", "pass", "'"))
    assert not isinstance(normalise(text, dialect), Truncated)


def test_a_list_of_any_length_is_one_shape():
    shapes = {normalise(f"select a from t where b in ({', '.join('7' * n)})", "mysql") for n in range(1, 30)}
    assert shapes == {"select a from t where b in (?)"}


@pytest.mark.parametrize(
    ("shape", "word"),
    [("select 1", "SELECT"), (" ((Select ?))", "SELECT"), ("with a as (?)", "WITH"), ("?", "?"), ("", "?")],
)
def test_kinds(shape, word):
    assert kind(shape) == word


@pytest.mark.parametrize("dialect", ["mysql", "postgresql"])
@pytest.mark.parametrize(
    "part",
    [
        *(
            "'",
            "''",
            "'a'\n",
            "E'a'\n",
            "E'a' -- b\n",
            "E'a'--",
            "--",
            "-- \n",
            "$",
            "$$",
            "$a$",
            "$a",
            "\u2018",
            "/*",
            "*/",
        ),
        *(
            "/*!",
            "/*!50000 ",
            "/*!50000 ' */",
            "/*!99999*/",
            "/*M!*/",
            "/*! /*",
            "`",
            '"',
            "(?,",
            "(1),",
            "-",
            "\\",
            "\0",
        ),
    ],
)
def test_any_statement_takes_time_proportional_to_its_length(part, dialect):
    text = part * (300_000 // len(part))
    before = time.process_time()
    normalise(text, dialect)
    assert time.process_time() - before < 5  # what is quadratic takes minutes


def test_a_text_that_comes_again_is_not_read_again(monkeypatch):
    read = []
    monkeypatch.setattr("usdtkit.providers.sql.normalise", lambda text, dialect: read.append(text) or text)
    shown.cache_clear()
    texts = [b"select 1", "select 1", Truncated("select 1"), TruncatedBytes(b"select 1"), b"select 2", None]
    for _ in range(97):
        for dialect in ("mysql", "postgresql"):
            for text in texts:
                shown(text, dialect)
    assert len(read) == 2 * 5  # text that was cut off is another, and so are bytes
    assert isinstance(shown(TruncatedBytes(b"select 1"), "mysql"), Truncated)
    for n in range(REMEMBERED):
        shown(f"select {n}", "mysql")
    shown(b"select 2", "mysql")
    assert shown.cache_info().currsize == REMEMBERED and read[-1] == "select 2"
    shown.cache_clear()
