"""Bytecode on disk: only from a directory that is ours alone, all of an entry or nothing, and never an error."""

import json
import os
import pwd
import stat
import threading
from types import SimpleNamespace

import pytest

from usdtkit import cache
from usdtkit.bpf import compiler

KEY = "0" * 64


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def answers(monkeypatch):
    """What the compiler's child is asked for; its answer is one empty program named after the text."""
    asked = []

    def run(text):
        asked.append(text)
        return json.dumps({"bcc": "0", "maps": [], "programs": {text: ""}}).encode()

    monkeypatch.setattr(compiler, "_run_child", run)
    return asked


def test_what_was_stored_is_loaded(place):
    assert cache.load(KEY) is None
    cache.store(KEY, b"content")
    assert cache.load(KEY) == b"content"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert [entry.name for entry in place.iterdir()] == [KEY]


def test_a_program_is_compiled_once(answers):
    assert compiler.compile_program("one").programs == {"one": b""}
    assert compiler.compile_program("one").programs == {"one": b""}
    assert compiler.compile_program("two").programs == {"two": b""}
    assert answers == ["one", "two"]


GARBAGE = [b"", b"\0" * 4096, b"{", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 10**5]
GARBAGE += [b'{"maps": [1], "programs": {}, "bcc": ""}', b'{"maps": [], "programs": [], "bcc": ""}']


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_entry_that_is_no_bytecode_is_made_again(answers, place, garbage):
    compiler.compile_program("one")
    [entry] = place.iterdir()
    entry.write_bytes(garbage)
    assert compiler.compile_program("one").programs == {"one": b""}
    assert compiler.compile_program("one").programs == {"one": b""}
    assert answers == ["one", "one"]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702, 0o720, 0o755])
def test_a_directory_that_others_can_enter_is_not_used(answers, place, mode):
    place.mkdir()
    place.chmod(mode)
    compiler.compile_program("one")
    compiler.compile_program("one")
    assert answers == ["one", "one"]
    assert list(place.iterdir()) == []


def test_a_directory_of_somebody_else_is_not_used(answers, place, monkeypatch):
    compiler.compile_program("one")
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    compiler.compile_program("one")
    assert answers == ["one", "one"]


def test_a_link_to_a_directory_is_not_used(answers, place, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "real")
    compiler.compile_program("one")
    assert list((tmp_path / "real").iterdir()) == []


def test_a_place_that_cannot_be_is_no_error(answers, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file" / "below", tmp_path / "file", "/proc/self/cache", "/dev/null"):
        monkeypatch.setenv("USDTKIT_CACHE", str(impossible))
        assert compiler.compile_program("one").programs == {"one": b""}
    assert len(answers) == 4


def test_a_full_disk_is_no_error_and_leaves_nothing(answers, place, monkeypatch):
    monkeypatch.setattr(cache.os, "replace", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space")))
    assert compiler.compile_program("one").programs == {"one": b""}
    assert list(place.iterdir()) == []


def test_writers_at_the_same_time(place):
    contents = [bytes([n]) * 1_000_003 for n in range(8)]
    done, seen = threading.Event(), set()

    def read():
        while not done.is_set():
            seen.add(cache.load(KEY))

    threads = [threading.Thread(target=cache.store, args=(KEY, content)) for content in contents]
    reader = threading.Thread(target=read)
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert seen <= {None, *contents}
    assert cache.load(KEY) in contents
    assert [entry.name for entry in place.iterdir()] == [KEY]


def test_the_key_depends_on_all_that_matters(monkeypatch):
    key = compiler._key("text")
    assert key != compiler._key("text ")
    monkeypatch.setattr(compiler.os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    assert key != compiler._key("text")
    monkeypatch.undo()
    monkeypatch.setattr(compiler, "_headers_hash", lambda: "")
    assert key != compiler._key("text")


def test_where_it_lies(monkeypatch):
    monkeypatch.delenv("USDTKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert str(cache.directory()) == "/x/usdtkit/bytecode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(cache.directory()) == "/home/ada/.cache/usdtkit/bytecode"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.directory() == "/home/ada/.cache/usdtkit/bytecode"


def test_without_a_home_it_is_not_where_one_happens_to_be(monkeypatch):
    def no_such_user(uid):
        raise KeyError(uid)

    for name in ("USDTKIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    assert cache.directory() == f"/var/tmp/usdtkit.{os.geteuid()}"


@pytest.mark.parametrize(("kind", "other"), [(cache.PROGRAMS, cache.TABLES), (cache.TABLES, cache.PROGRAMS)])
def test_the_least_recently_used_of_a_kind_go_when_it_is_too_large(place, kind, other):
    small = kind._replace(limit=3000)
    cache.store("0", bytes(5000), other)
    for number in range(4):
        cache.store(f"{number}", bytes(1000), small)
        os.utime(place / f"{number}{kind.suffix}", (number, number))
        if number == 2:
            assert cache.load("0", kind) == bytes(1000)  # which makes it the last one used
    assert {path.rpartition("/")[2] for path, _ in cache.entries(kind)} == {f"{n}{kind.suffix}" for n in (0, 2, 3)}
    assert cache.load("0", other) == bytes(5000)
    assert cache.clear() == 4
    assert cache.entries(kind) == cache.entries(other) == []


def test_an_entry_that_is_too_large_is_not_read(place):
    small = cache.TABLES._replace(largest=1000)
    for size, found in ((1000, bytes(1000)), (1001, None)):
        cache.store("0", bytes(size), small)
        assert cache.load("0", small) == found
