"""Tables of call frame information on disk: found again by what they are made of, and never believed if damaged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import cache
from usdtkit.elf.image import Image
from usdtkit.unwind import stored, tables

LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
LARGE = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch):
    """The paths of the files whose tables were made, and not found."""
    paths = []

    def make(described):
        paths.append(described.path)
        return tables.make_table(described)

    monkeypatch.setattr(stored, "make_table", make)
    return paths


def table_of(path):
    with Image.open(path) as image:
        described = tables.describe(image)
    return stored.table_of(described, stored.key_of(described))


def read(path):
    with Image.open(path) as image:
        return tables.read_table(image)


def test_a_large_table_is_made_once(made, tmp_path):
    shutil.copy(LARGE, tmp_path / "copy")
    expected = read(LARGE)
    assert table_of(LARGE) == table_of(LARGE) == table_of(tmp_path / "copy") == expected
    assert made == [LARGE]
    ((path, status),) = cache.entries(cache.TABLES)
    assert path.endswith(".unwind")
    assert len(expected.rows) < status.st_size < len(expected.rows) + len(expected.index) + 200


def test_a_small_table_is_not_kept(made):
    assert table_of(LIBC) == table_of(LIBC) == read(LIBC)
    assert made == [LIBC, LIBC]
    assert cache.entries(cache.TABLES) == []


def test_a_file_with_the_build_id_of_another_has_its_own_table(made, tmp_path):
    """It may be somebody's who wants other users' stacks to be wrong."""
    forged = tmp_path / "forged"
    content = bytearray(Path(LARGE).read_bytes())
    with Image.open(LARGE) as image:
        section = image.section(".eh_frame")
        build_id = image.build_id
    at = content.index(bytes.fromhex("0e10"), section.offset)  # DW_CFA_def_cfa_offset 16
    content[at + 1] = 24
    forged.write_bytes(content)
    with Image.open(forged) as image:
        assert image.build_id == build_id
    other = table_of(forged)
    assert other == read(forged)
    assert table_of(LARGE) == read(LARGE) != other
    assert made == [str(forged), LARGE]


def damages(content):
    yield b""
    yield content[:3]
    yield content[:-1]
    yield content + b"\0"
    for at in (0, 4, 11, 12, 20, 200, len(content) // 2, len(content) - 1):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_what_is_damaged_is_made_afresh(made):
    expected = table_of(LARGE)
    ((path, _),) = cache.entries(cache.TABLES)
    entry = Path(path)
    content = entry.read_bytes()
    for count, damaged in enumerate(damages(content), 2):
        entry.write_bytes(damaged)
        assert table_of(LARGE) == expected
        assert len(made) == count
        assert entry.read_bytes() == content
    assert table_of(LARGE) == expected
    assert len(made) == count


@pytest.mark.parametrize("pages", [-1, 1])
def test_an_index_of_another_size_is_none(made, pages):
    """A valid checksum does not make it the table of this file."""
    with Image.open(LARGE) as image:
        described = tables.describe(image)
    other = described._replace(end=described.end + pages * tables.PAGE)
    cache.store(stored.key_of(described), stored._packed(tables.make_table(other)), cache.TABLES)
    assert table_of(LARGE) == read(LARGE)
    assert made == [LARGE]


def test_the_key_depends_on_all_that_the_table_does():
    with Image.open(LARGE) as image:
        described = tables.describe(image)
    section, *others = described.sections
    different = [
        described,
        described._replace(machine="aarch64"),
        described._replace(lowest=4096),
        described._replace(end=described.end + 1),
        described._replace(ranges=(described.ranges[0]._replace(offset=0),)),
        described._replace(sections=(section._replace(address=0), *others)),
        described._replace(sections=(section._replace(kind=2), *others)),
        described._replace(sections=(section._replace(data=section.data[:-1]), *others)),
    ]
    assert len(set(map(stored.key_of, different))) == len(different)
    assert stored.key_of(described._replace(path="elsewhere")) == stored.key_of(described)


def test_the_command_shows_and_clears_both_kinds(place):
    table = table_of(LARGE)
    cache.store("0" * 64, bytes(1000))
    shown = usdtkit_cache("--json")
    assert (shown["directory"], shown["entries"], shown["bytes"], shown["tables"]) == (str(place), 1, 1000, 1)
    assert shown["tables_bytes"] > len(table.rows)
    assert usdtkit_cache("--json", "--clear") | {"directory": ""} == {
        **{"directory": "", "entries": 0, "bytes": 0, "removed": 2, "added": 0},
        **{"tables": 0, "tables_bytes": 0},
    }
    assert list(place.iterdir()) == []


def usdtkit_cache(*options):
    command = [sys.executable, "-m", "usdtkit", "cache", *options]
    header, counts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(header) == {"schema": "usdtkit.cache/1"}
    return json.loads(counts)
