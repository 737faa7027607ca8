"""Perf maps: what is believed, and what is found in them."""

import os
import stat
from pathlib import Path

import pytest

from usdtkit.trace import perfmap
from usdtkit.trace.perfmap import PerfMap, PerfMaps

NOBODY = 65534


@pytest.fixture
def path():
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.unlink(missing_ok=True)
    yield path
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)


def ours():
    return PerfMap.of(os.getpid())


def test_names_and_offsets(path):
    path.write_text("1000 20 py::first:/a b.py\n2000 8 JS:*second [eval]:1:1\n")
    found = ours()
    assert found.find(0x1000) == ("py::first:/a b.py", 0)
    assert found.find(0x101F) == ("py::first:/a b.py", 0x1F)
    assert found.find(0x1020) is None
    assert found.find(0xFFF) is None
    assert found.find(0x2007) == ("JS:*second [eval]:1:1", 7)


def test_what_is_written_later_is_found(path):
    path.write_text("1000 20 first\n")
    found = ours()
    assert found.find(0x2000) is None
    with path.open("a") as file:
        file.write("2000 8 sec")
        file.flush()
        assert found.find(0x2000) is None  # the line may go on
        file.write("ond\n")
        file.flush()
        assert found.find(0x2000) == ("second", 0)


def test_a_map_that_begins_anew(path):
    path.write_text("1000 20 first\n3000 20 third\n")
    found = ours()
    assert found.find(0x3000) == ("third", 0)
    path.write_text("2000 8 second\n")
    assert found.find(0x2000) == ("second", 0)
    assert found.find(0x3000) is None


def test_code_in_the_place_of_other_code(path):
    path.write_text("1000 100 old\n1040 10 inside\n1000 20 new\n")
    found = ours()
    assert found.find(0x1010) == ("new", 0x10)
    assert found.find(0x1030) == ("old", 0x30)
    assert found.find(0x1044) == ("inside", 4)
    assert found.find(0x10F0) == ("old", 0xF0)


HOSTILE = [
    b"",
    b"\n\n\n",
    b"zz 20 name\n",
    b"1000 20\n",
    b"1000 0 empty\n",
    b"0 20 null\n",
    b"-1000 20 negative\n",
    b"1" * 100_000 + b" 20 huge\n",
    b"ffffffffffffffff ffffffffffffffffff end\n",
    b"1_000 2_0 digits\n",
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_damage_is_passed_over(path, content):
    path.write_bytes(content + b"5000 10 sane\n")
    found = ours()
    assert found.find(0x5000) == ("sane", 0)
    assert found.find(0x100) is None


def test_bytes_that_are_no_text(path):
    path.write_bytes(b"1000 20 \xff\x1b[31m" + b"x" * 10_000 + b"\n")
    name, _ = ours().find(0x1000)
    assert name.startswith("\udcff\x1b[31mxxx")
    assert len(name) == perfmap.LONGEST_NAME


def test_a_line_without_an_end_costs_nothing(path):
    with path.open("wb") as file:
        file.truncate(perfmap.LARGEST * 4)
    assert ours().find(0x1000) is None


def test_only_so_much_is_read(path, monkeypatch):
    monkeypatch.setattr(perfmap, "LARGEST", 28)
    path.write_text("1000 20 first\n2000 20 secon\n3000 20 third\n")
    found = ours()
    assert found.find(0x2000) == ("secon", 0)
    assert found.find(0x3000) is None


def test_a_forked_process_has_the_names_of_its_parent_and_a_started_one_has_not(path, spawn, wait_for_line):
    path.write_text("1000 20 first\n2000 20 second\n")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    theirs = Path(f"/tmp/perf-{child}.map")
    try:
        found = PerfMaps(child)
        assert found.find(0x1000) == ("first", 0)
        theirs.write_text("1000 20 its own\n")
        assert found.find(0x1000) == ("its own", 0)
        assert found.find(0x2000) == ("second", 0)
    finally:
        theirs.unlink(missing_ok=True)
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)
    process = spawn(["sh", "-c", "echo ready; read line"])
    wait_for_line(process, "ready")
    assert PerfMaps(process.pid).find(0x1000) is None


def test_no_map():
    assert PerfMap.of(os.getpid()) is None
    assert PerfMap.of(2**22 + 1) is None


def test_symbolic_links_are_not_followed(path, tmp_path):
    (tmp_path / "map").write_text("1000 20 first\n")
    path.symlink_to(tmp_path / "map")
    assert ours() is None


def test_neither_pipes_nor_directories_are_read(path):
    os.mkfifo(path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert ours() is None
    path.unlink()
    path.mkdir()
    assert ours() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_map_of_another_user_is_not_believed(path):
    path.write_text("1000 20 first\n")
    os.chown(path, NOBODY, NOBODY)
    assert ours() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_map_of_the_process_s_user_is_believed(path, spawn, wait_for_line):
    process = spawn(["setpriv", "--reuid", str(NOBODY), "--clear-groups", "sh", "-c", "echo ready; read line"])
    wait_for_line(process, "ready")
    theirs = Path(f"/tmp/perf-{process.pid}.map")
    theirs.write_text("1000 20 first\n")
    try:
        os.chown(theirs, NOBODY, NOBODY)
        assert PerfMap.of(process.pid).find(0x1000) == ("first", 0)
        os.chown(theirs, 1, 1)
        assert PerfMap.of(process.pid) is None
    finally:
        theirs.unlink()
