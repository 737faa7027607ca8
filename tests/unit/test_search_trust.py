"""Bare names: files of root and ours first, those of other users only where they run, and a search that ends."""

import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commandline import USDTKIT
from elffiles import ProbeSpec

from usdtkit import resolve, targets
from usdtkit.elf import notes
from usdtkit.elf.image import MOST_NOTES, Image
from usdtkit.errors import ElfError, NotFoundError
from usdtkit.model import Target
from usdtkit.probes.image import build

pytestmark = pytest.mark.machine

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
STRANGER, ANOTHER = 12345, 12346
MAPS = """
import mmap, os, sys
held = [mmap.mmap(os.open(path, os.O_RDONLY), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        for path in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(monkeypatch):
    """Where provider files of all users lie, which all may enter."""
    folder = Path(f"/var/tmp/usdtkit-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    monkeypatch.setattr("usdtkit.directories._TEMPORARY", folder)
    monkeypatch.setenv("USDTKIT_DIR", str(folder / "own"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def provider_file(place):
    """provider_file(owner, age=0) -> the path of a file with spoofed997:order__start, in the directory of its owner."""

    def make(owner, age=0, name="spoofed997-0123456789abcdef.so", content=None):
        folder = place / (f"usdtkit-{owner}" if owner else "own")
        folder.mkdir(mode=0o755, exist_ok=True)
        path = folder / name
        path.write_bytes(content or build("spoofed997", [ProbeSpec("order__start", "", (("order_id", "u64"),))]))
        os.utime(path, (time.time() - age,) * 2)
        for each in (folder, path):
            os.chown(each, owner, owner)
        return str(path)

    return make


@pytest.fixture
def mapping(spawn, wait_for_line):
    """mapping(user, *paths) -> a process of that user, which maps the files to execute."""

    def start(user, *paths):
        command = [sys.executable, "-I", "-c", MAPS, *paths]
        process = spawn(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command])
        wait_for_line(process, "ready")
        return process

    return start


def found():
    return [probe.path for probe in targets.find_probes("spoofed997:order__start")]


@AS_ROOT
def test_a_newer_file_of_a_stranger_displaces_nothing(provider_file, mapping):
    own = provider_file(0, age=3600)
    theirs = provider_file(STRANGER)
    assert found() == [own]
    mapping(STRANGER, theirs)
    assert found() == [own, theirs]
    mapping(0, own)
    assert sorted(found()) == sorted([own, theirs])


@AS_ROOT
def test_a_file_of_a_stranger_counts_where_its_owner_runs_it(provider_file, mapping):
    theirs = provider_file(STRANGER)
    with pytest.raises(NotFoundError):
        found()
    mapping(ANOTHER, theirs)
    with pytest.raises(NotFoundError):
        found()
    mapping(STRANGER, theirs)
    assert found() == [theirs]


@AS_ROOT
def test_a_file_of_a_stranger_counts_where_root_runs_it(provider_file, mapping):
    theirs = provider_file(STRANGER)
    mapping(0, theirs)
    assert found() == [theirs]


@AS_ROOT
def test_a_directory_that_is_called_as_another_users(place, provider_file, mapping):
    theirs = Path(provider_file(STRANGER))
    os.chown(theirs.parent, ANOTHER, ANOTHER)
    mapping(STRANGER, theirs)
    assert str(theirs) not in [target.path for target in targets.everything() if not target.pids]
    assert theirs not in resolve._provider_files()


@AS_ROOT
def test_a_file_of_roots_in_a_strangers_directory_is_the_strangers(provider_file):
    """Who owns a directory can have hard links there, or exchange what is in it."""
    theirs = provider_file(STRANGER)
    os.chown(theirs, 0, 0)
    with pytest.raises(NotFoundError):
        found()


@AS_ROOT
def test_links_of_a_stranger_are_not_followed(provider_file, place):
    own = Path(provider_file(0))
    hidden = place / "hidden"
    own.parent.rename(hidden)
    links = place / f"usdtkit-{STRANGER}"
    links.mkdir()
    (links / "spoofed997-0123456789abcdef.so").symlink_to(hidden / own.name)
    (place / f"usdtkit-{ANOTHER}").symlink_to(hidden)
    for path, owner in ((links, STRANGER), (links / own.name, STRANGER), (place / f"usdtkit-{ANOTHER}", ANOTHER)):
        os.lchown(path, owner, owner)
    with pytest.raises(NotFoundError):
        found()


@AS_ROOT
def test_the_owner_is_named(provider_file, mapping, place, monkeypatch):
    theirs = provider_file(STRANGER)
    place = Path(f"/var/tmp/usdtkit-{STRANGER}")
    shutil.copytree(Path(theirs).parent, place)
    moved = place / Path(theirs).name
    for each in (place, moved):
        os.chown(each, STRANGER, STRANGER)
    monkeypatch.delenv("USDTKIT_DIR")
    try:
        listed = subprocess.run([*USDTKIT, "list", "spoofed997:*"], capture_output=True, text=True)
        line = f"spoofed997:order__start {moved} (belongs to uid {STRANGER})\n"
        assert (listed.returncode, listed.stdout) == (0, line)
        trace = [*USDTKIT, "trace", "u::spoofed997:order__start"]
        refused = subprocess.run([*trace, "--explain"], capture_output=True, text=True)
        assert (refused.returncode, refused.stdout) == (4, "")
        mapping(STRANGER, moved)
        explained = subprocess.run([*trace, "--explain"], capture_output=True, text=True)
        assert f"{moved} belongs to uid {STRANGER}" in explained.stderr
        heading, row = explained.stdout.splitlines()
        assert "OWNER" in heading.split() and f"uid {STRANGER}" in row
        explained = subprocess.run([*trace, "--explain", "--json"], capture_output=True, text=True)
        assert f'"owner": {STRANGER}' in explained.stdout
    finally:
        shutil.rmtree(place)


def bomb(size):
    """An ELF file whose section of probe notes has `size` bytes of nothing but empty notes, in a hole."""
    names = b"\0.note.stapsdt\0.shstrtab\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2)

    def section(name, kind, offset, size):
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 4, 0)

    return header + bytes(64) + section(1, 7, 4096, size) + section(15, 3, 256, len(names)) + names


def sparse(path, size):
    path.write_bytes(bomb(size))
    os.truncate(path, 4096 + size)
    return str(path)


@pytest.mark.parametrize("size", [16 << 20, 12 * (MOST_NOTES + 1)])
def test_a_file_of_empty_notes(tmp_path, size):
    with Image.open(sparse(tmp_path / "bomb.so", size)) as image:
        with pytest.raises(ElfError, match=f"more than {MOST_NOTES} notes"):
            notes.read_probes(image)
        assert image.bytes_read < 2 << 20


def test_as_many_notes_as_are_read(tmp_path):
    with Image.open(sparse(tmp_path / "notes.so", 12 * MOST_NOTES)) as image:
        assert notes.read_probes(image) == ()


def test_notes_that_are_larger_than_what_is_read_at_once(tmp_path):
    """Every note comes out whole, wherever the pieces in which the file is read end."""
    sizes = [0, 1, 997, (1 << 18) - 12, 1 << 18, 3 << 18, 5, 131_071] * 3
    path = tmp_path / "notes"
    path.write_bytes(
        bomb(0) + b"".join(struct.pack("<III", 4, size, 7) + b"own\0" + bytes([size % 251]) * size + bytes(-size % 4)
                           for size in sizes)
    )  # fmt: skip
    start = len(bomb(0))
    with Image.open(path) as image:
        read = list(image.notes(start, image.size - start))
        assert read == [(b"own", 7, bytes([size % 251]) * size) for size in sizes]
        with pytest.raises(ElfError, match="damaged note"):
            list(image.notes(start, image.size - start - 8))


@AS_ROOT
def test_a_search_over_files_of_strangers_ends_early_and_says_so(tmp_path, provider_file, caplog):
    bombs = [Target(path := sparse(tmp_path / f"{number}.so", 1 << 20), path) for number in range(20)]
    for target in bombs:
        os.chown(target.path, STRANGER, STRANGER)
    good = provider_file(0)
    found = targets.probes_of([*bombs, Target(good, good)], seconds=1e-6)
    assert [probe.path for probe in found] == [good]
    said = [record.getMessage() for record in caplog.records]
    assert any("19 files of other users were not read" in line for line in said)
    caplog.clear()
    targets.probes_of(bombs, seconds=60)
    assert not any("ended early" in record.getMessage() for record in caplog.records)


@AS_ROOT
def test_bombs_among_provider_files_that_run(tmp_path, provider_file, mapping, place):
    own = provider_file(0, age=3600)
    bombs = [
        provider_file(STRANGER, name=f"bomb{number}-0123456789abcdef.so", content=bomb(16 << 20))
        for number in range(20)
    ]
    for path in bombs:
        os.truncate(path, 4096 + (16 << 20))
    mapping(STRANGER, *bombs)
    before = time.process_time()
    assert found() == [own]
    assert time.process_time() - before < 10  # it was 0.8 s for each
