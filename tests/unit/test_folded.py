"""Folded lines: one a stack, whatever the names contain."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usdtkit.output import folded
from usdtkit.trace.memory import Frame

NAMED = Frame(0x401234, "work", 0x14, "/usr/bin/shop")


def test_a_line():
    assert folded.line(["main", "left", "work"], 997) == "main;left;work 997"


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
def test_hostile_names(name, shown):
    assert folded.line(["main", name], 1) == f"main;{shown} 1"


@given(st.lists(st.text(), min_size=1), st.integers(0, 2**64))
def test_frames_and_count_come_back(labels, count):
    line = folded.line(labels, count)
    assert line.isprintable()
    frames, _, number = line.rpartition(" ")
    assert len(frames.split(";")) == len(labels)
    assert int(number) == count


def test_labels_of_frames():
    assert folded.label(NAMED) == "work"
    assert folded.label(NAMED, offsets=True) == "work+0x14"
    assert folded.label(NAMED, addresses=True) == "0x0000000000401234 work"
    assert folded.label(Frame(0x7F001234, "", 0x1234, "/usr/lib/libssl.so.3"), offsets=True) == "libssl.so.3+0x1234"
    assert folded.label(Frame(0x7F001234, "", 0x7F001234, "")) == "0x7f001234"


def test_no_stack():
    assert folded.labels(None) == (folded.NO_STACK,)
    assert re.fullmatch(r"\[no stack\] 3", folded.line(folded.labels(None), 3))


def test_a_stack_in_a_row():
    labels = ("in;ner", "out\x1b[2Jer\udc80")
    assert folded.cell(labels, "json") == ["in;ner", "out\\x1b[2Jer\\x80"]
    assert folded.cell(labels, "csv") == "out\\x1b[2Jer\\x80;in:ner"
