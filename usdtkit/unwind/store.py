"""Open files → places of their tables in the two maps that the walker in the kernel searches.

Input: open files of code. Output: `Place`s for `usdtkit.unwind.mapped`, and what is written to the maps, which are
given as `Maps`. `unwind_rows` has chunks of 32,768 rows, `unwind_index` an entry for each page of 4 KB of code of each
file: the number of the page's first row (its chunk << 15 | its place there), and how many there are. The rows of one
page lie in one chunk. Both maps only grow, and a page is written after its rows, so that a program can search while
they do. A file is read once, whatever its names are, and tables of the same rows lie there once.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Protocol

from usdtkit._ffi import ffi, lib
from usdtkit.elf.image import Image
from usdtkit.errors import PrivilegeError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.records import NamedTuple
from usdtkit.unwind.stored import key_of, table_of
from usdtkit.unwind.tables import ROW, LoadRange, Table, describe

CHUNK_ROWS: int = 1 << lib.USDTKIT_CHUNK_BITS
CHUNK_BYTES = CHUNK_ROWS * ROW.size
MOST_PAGES = 1 << 17
"""Entries of the index: 512 MB of code."""
MOST_CHUNKS: int = 1 << 32 - lib.USDTKIT_CHUNK_BITS
MEGABYTES = 32
"""The most memory that rows take, if nothing else is asked for."""

_MOST_FILES = 1 << 12  # that are remembered; those whose tables are in the maps are found again by their content
_MOST_NAMES = 16


class Maps(Protocol):
    """Where tables are written: two maps of the kernel."""

    def new_chunk(self, number: int, rows: bytes) -> None:
        """Make a chunk of `CHUNK_BYTES`. Chunks are made in the order of their numbers."""

    def update_chunk(self, number: int, offset: int, rows: bytes) -> None:
        """Write rows into the last chunk, from this byte on."""

    def write_index(self, first_page: int, pages: bytes) -> None:
        """Write entries of 8 bytes: u32 number of the first row, u32 how many rows."""


class Place(NamedTuple):
    """Where the table of a file lies: its first page of the index and how many it has, from its lowest address on.

    `ranges` is its code. A file without a table has no pages, and `why` says the reason.
    """

    page: int
    pages: int
    ranges: tuple[LoadRange, ...] = ()
    why: str = ""


class Store:
    """The tables of all files that were asked for, as far as they fit.

    `refused` counts files that did not fit, and `full` has the names of the first of them.
    """

    def __init__(self, maps: Maps, megabytes: int = MEGABYTES) -> None:
        """`megabytes` bounds the chunks: there are four in a megabyte."""
        self._maps = maps
        self._most_chunks = min((megabytes << 20) // CHUNK_BYTES, MOST_CHUNKS)
        self._megabytes = megabytes
        self._chunks = self._rows = self._pages = 0
        self._by_file: OrderedDict[tuple[int, int, int], Place] = OrderedDict()
        self._by_content: dict[str, Place] = {}
        self.full: dict[str, None] = {}
        self.refused = 0

    @property
    def size(self) -> int:
        """Bytes of memory that the chunks take."""
        return self._chunks * CHUNK_BYTES

    def place(self, file: OpenFile, name: str) -> Place:
        """Return the place of a file's table, which is written to the maps if it is new. `name` is for messages.

        If the maps raise an error, nothing refers to what was written of the table.
        """
        place = self._by_file.get(file.version)
        if place is None:
            place = self._by_file[file.version] = self._read(file, name)
            if len(self._by_file) > _MOST_FILES:
                self._by_file.popitem(last=False)
        return place

    def _read(self, file: OpenFile, name: str) -> Place:
        try:
            with Image(name, file) as image:
                described = describe(image)
            if described.machine != os.uname().machine:
                return Place(0, 0, why=f"{name}: is code for {described.machine}")
            key = key_of(described)
            if key in self._by_content:
                return self._by_content[key]
            table = table_of(described, key)
        except UsdtkitError as error:
            return Place(0, 0, why=error.message)
        try:
            place = self._add(table, name)
        except PrivilegeError as error:  # given up since: what fits into the last chunk does, nothing else ever
            return Place(0, 0, why=f"{name}: {error.message}")
        if place.pages:
            self._by_content[key] = place
        return place

    def _add(self, table: Table, name: str) -> Place:
        if len(table) == 1:  # that nothing is known
            return Place(0, 0, why=f"{name}: has no call frame information")
        pages = len(table.index) // 4 - 1
        laid = ffi.new("usdtkit_unwind_page[]", min(pages, MOST_PAGES))
        copies = ffi.new("usdtkit_unwind_copy[]", len(table) // (CHUNK_ROWS - lib.USDTKIT_PAGE_MOST) + 2)
        count = lib.usdtkit_unwind_lay(
            *(ffi.from_buffer("usdtkit_unwind_row[]", table.rows), len(table)),
            *(ffi.from_buffer("uint32_t[]", table.index), laid, len(laid)),
            *(self._rows, copies, len(copies)),
        )
        end = copies[count - 1].to + copies[count - 1].count if count > 0 else self._rows
        if count < 0 or self._pages + pages > MOST_PAGES or -(-end // CHUNK_ROWS) > self._most_chunks:
            self.refused += 1
            self.full = dict.fromkeys([*self.full, name][:_MOST_NAMES])
            return Place(0, 0, why=f"{name}: does not fit into the {self._megabytes} MB for tables")
        for copy in copies[0:count]:
            self._write(copy.to, table.rows[copy.row * ROW.size : (copy.row + copy.count) * ROW.size])
            self._rows = copy.to + copy.count
        self._maps.write_index(self._pages, bytes(ffi.buffer(laid)))
        place = Place(self._pages, pages, table.ranges)
        self._pages += pages
        return place

    def _write(self, number: int, rows: bytes) -> None:
        chunk, inside = divmod(number, CHUNK_ROWS)
        if chunk < self._chunks:
            self._maps.update_chunk(chunk, inside * ROW.size, rows)
        else:
            self._maps.new_chunk(chunk, rows.ljust(CHUNK_BYTES, b"\0"))
            self._chunks += 1
