"""Statements that the kernel counts as one have one shape, whatever they are made of."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.model import Truncated
from usdtkit.providers import sql
from usdtkit.providers.alike import same_kind, same_shape

PIECES = [
    *("'", '"', "`", "\\", "--", "-- ", "#", "/*", "*/", "/", "*", "/*!", "/*M!", "!", "$", "$$", "$1", "$a$"),
    *("e", "E", "1", "12", "1e", "1e+", ".5", "0x1F", ".", "+", "-", "_", "a", "ab", "x'41'", "N'a'", "U&'", "_utf8'"),
    *(" ", "\n", "\r", "\t", ";", "(", ")", ",", "=", "'a'", "'b''c'", "'d\\'e'", '"n"', "`m`", "select", "SELECT"),
    *("\u00e9", "\u2018", "\u2019", "\u00a0", "\0", "insert", "?", "'a", "99999", "/* c */", "/* d */", "\x7f"),
]
STATEMENTS = st.lists(st.sampled_from(PIECES), max_size=9).map("".join)
DIALECTS = ("mysql", "postgresql")


def assert_alike_only_if_so(texts, dialect):
    """That of texts of which the same counts, the shapes and the first words are the same."""
    for scanner, of in (
        (same_shape(dialect), lambda text: (str(sql.normalise(text, dialect)), isinstance(text, Truncated))),
        (same_kind(dialect), lambda text: sql.kind(sql.normalise(text, dialect))),
    ):
        shapes = {}
        for text in texts:
            key = scanner.counted(text.encode()), isinstance(text, Truncated)
            first, shape = shapes.setdefault(key, (text, of(text)))
            assert of(text) == shape, (first, text)


@pytest.mark.parametrize("dialect", DIALECTS)
@given(start=STATEMENTS, first=STATEMENTS, second=STATEMENTS, end=STATEMENTS, cut=st.integers(0, 30))
def test_what_counts_decides_the_shape(start, first, second, end, cut, dialect):
    texts = [start + first + end, start + second + end]
    assert_alike_only_if_so([*texts, *(Truncated(text[:cut]) for text in texts)], dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_many_short_statements(dialect):
    """Of which many are alike, because they are made of few pieces."""
    choose = random.Random(997)
    texts = {"".join(choose.choices(PIECES, k=choose.randint(1, 4))) for _ in range(60_000)}
    assert_alike_only_if_so(texts, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_differs_in_its_data_is_alike(dialect):
    scanner = same_shape(dialect)
    one = b"select c from sbtest1 where id = 42 and a in (1.5e-3, 'it''s') /* trace 1 */ -- x"
    other = b"select c from sbtest1 where id = 7000001 and a in (0.25, 'x') /* a longer one */ -- x"
    assert scanner.counted(one.replace(b"e-3", b"")) == scanner.counted(other)
    assert scanner.counted(one) != scanner.counted(other.replace(b"sbtest1", b"sbtest2"))
    kinds = same_kind(dialect)
    assert kinds.counted(b"select 1") == kinds.counted(b" (SELECT c from t where a = 'b')")
    assert kinds.counted(b"select 1") != kinds.counted(b"insert into t values (1)")
