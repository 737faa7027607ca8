"""Tables in the maps of the walker: every row is found there as in the table, once, and within the bound."""

import os
import random
import shutil
import struct
from bisect import bisect_left, bisect_right
from pathlib import Path

import cfi
import pytest
from walkermaps import NODE, WalkerMaps

from usdtkit.elf.image import Image
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.unwind import store as store_module
from usdtkit.unwind.store import CHUNK_BYTES, CHUNK_ROWS, Store
from usdtkit.unwind.tables import PAGE, Description, Frames, LoadRange, make_table, read_table

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
LIBC = f"{LIBRARIES}/libc.so.6"
LARGEST = [
    *(LIBC, "/usr/bin/python3.11", "/usr/lib/postgresql/15/bin/postgres", NODE, "/usr/sbin/mariadbd"),
    f"{LIBRARIES}/libcrypto.so.3",
]


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def maps():
    return WalkerMaps()


def table_of(path):
    with Image.open(path) as image:
        return read_table(image)


def place(store, path):
    return store.place(OpenFile.open(path), str(path))


def check(maps, placed, table):
    """Each page has just the rows that addresses in it can have, so that each search finds what Table.find does."""
    addresses = [address for address, _, _, _ in struct.iter_unpack("<IhBB", table.rows)]
    assert placed.pages == len(table.index) // 4 - 1
    for page in range(placed.pages):
        first = bisect_right(addresses, page * PAGE) - 1
        end = bisect_left(addresses, (page + 1) * PAGE)
        assert maps.rows_of(placed.page + page) == table.rows[8 * first : 8 * end]


def test_every_row_is_found(maps):
    """In files that lie behind each other in the same chunks, whichever of them came first."""
    store, chance = Store(maps), random.Random(997)
    placed = {path: place(store, path) for path in LARGEST}
    for path in LARGEST:
        table = table_of(path)
        check(maps, placed[path], table)
        for inside in chance.choices(range(placed[path].pages * PAGE), k=997):
            assert maps.find(placed[path], inside) == table.find(table.lowest + inside)
    rows = sum(len(table_of(path)) for path in LARGEST)
    assert store.size == CHUNK_BYTES * len(maps.chunks)
    assert rows <= store.size // 8 < rows + 2 * CHUNK_ROWS
    assert (store.full, store.refused) == ({}, 0)


def test_a_file_is_placed_once(maps, tmp_path):
    store = Store(maps)
    first = place(store, LIBC)
    written = maps.writes
    shutil.copy(LIBC, tmp_path / "copy")
    os.link(tmp_path / "copy", tmp_path / "link")
    assert place(store, LIBC) == place(store, tmp_path / "copy") == place(store, tmp_path / "link") == first
    assert maps.writes == written
    assert place(store, LARGEST[1]).page == first.pages


def test_a_file_that_was_written_to_is_read_again(maps, tmp_path):
    path = tmp_path / "library"
    shutil.copy(LIBC, path)
    store = Store(maps)
    first = place(store, path)
    shutil.copy(f"{LIBRARIES}/libm.so.6", path)
    os.utime(path, ns=(1, 1))
    second = place(store, path)
    assert second.page == first.pages
    check(maps, second, table_of(f"{LIBRARIES}/libm.so.6"))


def test_more_files_than_are_remembered(maps, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_MOST_FILES", 2)
    store = Store(maps)
    first = place(store, LIBC)
    for number in range(3):
        shutil.copy(f"{LIBRARIES}/libm.so.6", tmp_path / f"{number}")
        place(store, tmp_path / f"{number}")
    written = maps.writes
    assert place(store, LIBC) == first
    assert maps.writes == written


def test_what_does_not_fit_is_left_out_and_named(maps):
    store = Store(maps, megabytes=1)
    python, node, libc = place(store, LARGEST[1]), place(store, NODE), place(store, LIBC)
    assert (node.pages, node.page) == (0, 0)
    assert node.why == f"{NODE}: does not fit into the 1 MB for tables"
    assert (list(store.full), store.refused) == ([NODE], 1)
    assert store.size <= 1 << 20
    check(maps, python, table_of(LARGEST[1]))
    check(maps, libc, table_of(LIBC))


def test_the_index_is_bounded(maps, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_PAGES", 400)
    store = Store(maps)
    assert [place(store, path).pages for path in (LIBC, LARGEST[1], LIBC)] == [380, 0, 380]
    assert list(store.full) == [LARGEST[1]]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"#!/bin/sh\n" * 10, "not an ELF file"),
        (b"\x7fELF\1\1\1" + bytes(9) + struct.pack("<HH", 3, 3) + bytes(100), "of i386 is not read"),
        (b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, 62) + bytes(100), "has no call frame information"),
        (b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, 183) + bytes(100), "is code for aarch64"),
    ],
)
def test_files_without_a_table(maps, tmp_path, content, why):
    path = tmp_path / "file"
    path.write_bytes(content)
    store = Store(maps)
    placed = place(store, path)
    assert (placed.page, placed.pages) == (0, 0)
    assert placed.why == f"{path}: {why}" or placed.why.endswith(why)
    assert place(store, path) is placed
    assert (store.full, maps.writes) == ({}, 0)


def test_what_the_maps_refuse_leaves_nothing_behind(maps, monkeypatch):
    """The next file takes the same pages, and the one that failed can be placed later."""
    store = Store(maps)

    def refuse(*_):
        raise UsdtkitError("the map is gone")

    with monkeypatch.context() as broken:
        broken.setattr(maps, "write_index", refuse)
        with pytest.raises(UsdtkitError, match="the map is gone"):
            place(store, LIBC)
    placed = place(store, f"{LIBRARIES}/libm.so.6")
    assert placed.page == 0
    check(maps, placed, table_of(f"{LIBRARIES}/libm.so.6"))
    check(maps, place(store, LIBC), table_of(LIBC))
    assert store.size == 2 * CHUNK_BYTES


def test_damaged_files_have_the_table_that_they_describe_or_none(maps, tmp_path):
    whole, chance = Path(f"{LIBRARIES}/libuuid.so.1").read_bytes(), random.Random(997)
    store, said = Store(maps), 0
    with Image.open(f"{LIBRARIES}/libuuid.so.1") as image:
        frames = image.section(".eh_frame")
    for number in range(499):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            where = chance.choice([range(64), range(64, 800), range(frames.offset, frames.offset + frames.size)])
            data[chance.choice(where)] = chance.choice([0, 1, 4, 0x10, 0x7F, 0x80, 0xFF])
        path = tmp_path / f"{number}"
        path.write_bytes(data)
        placed = place(store, path)
        assert placed.why or placed.pages
        said += bool(placed.why)
        if placed.pages:
            check(maps, placed, table_of(path))
    assert 50 < said < 450


def dense(counts):
    """The description of a file that has one range for each page, with so many rows of one byte each."""
    address, section = 0x10000000, cfi.common()
    for page, count in enumerate(counts):
        rules = [cfi.op(cfi.DEF_CFA_OFFSET, 8 * (2 + (page + step) % 2)) for step in range(count)]
        section = cfi.described(section, address, page * PAGE, PAGE, cfi.advance(1).join(rules))
    end = len(counts) * PAGE
    return Description("dense", "x86_64", 0, end, (LoadRange(0, end, 0),), (Frames(section, address, 0),))


def test_pages_that_are_as_dense_as_can_be(maps, monkeypatch):
    """A row at each byte is the most that a page can have, and the rows of a page are never in two chunks."""
    described = dense([4095, 1, 4096, 3, 4095, *[4096] * 9, 2, 4095])
    monkeypatch.setattr(store_module, "describe", lambda image: described)
    store = Store(maps)
    table = make_table(described)
    assert len(table) > 4096 * 12
    check(maps, place(store, LIBC), table)
    assert len(maps.chunks) == 2


@pytest.mark.parametrize("room", range(-2, 3))
def test_the_end_of_a_chunk(maps, monkeypatch, room):
    """Where a table just fits, or does not, by a row or two."""
    first, second = dense([4096] * 7 + [4096 - 93 - room]), dense([100])
    store = Store(maps)
    for described in (first, second):
        monkeypatch.setattr(store_module, "describe", lambda image, described=described: described)
        path = {4096 * 8: LIBC}.get(described.end, LARGEST[1])
        check(maps, place(store, path), make_table(described))
    # The last row of a table is behind its code, and in no page.
    rows = len(make_table(first)) + len(make_table(second)) - 2
    assert (rows, len(maps.chunks)) == (CHUNK_ROWS - room, 1 + (room < 0))
