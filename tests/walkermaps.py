"""The maps that the walker in the kernel searches, in memory, and the same search. Used by the tests of tables."""

import struct
from pathlib import Path

from usdtkit.unwind.mapped import HEAD, MAPPING, NO_MAPPING, SIZE
from usdtkit.unwind.store import CHUNK_BYTES, CHUNK_ROWS, MOST_PAGES, Place
from usdtkit.unwind.tables import PAGE, ROW, Row

NODE = str(next(Path("/usr/lib/x86_64-linux-gnu").glob("libnode.so.*"), "/usr/bin/node"))
"""The file that has the code of Node: some builds have it in a library."""


class WalkerMaps:
    """Both maps; what is written is checked against what the kernel's maps take."""

    def __init__(self):
        self.chunks = []
        self.index = bytearray(8 * MOST_PAGES)
        self.end = 0  # of the rows
        self.writes = 0

    def new_chunk(self, number, rows):
        assert (number, len(rows)) == (len(self.chunks), CHUNK_BYTES)
        self.chunks.append(bytearray(rows))
        self.end = number * CHUNK_ROWS + len(rows.rstrip(b"\0")) // 8 + 1
        self.writes += 1

    def update_chunk(self, number, offset, rows):
        assert number == len(self.chunks) - 1
        assert rows and offset + len(rows) <= CHUNK_BYTES
        assert not any(self.chunks[number][offset : offset + len(rows)]), "rows are written twice"
        self.chunks[number][offset : offset + len(rows)] = rows
        self.end = number * CHUNK_ROWS + (offset + len(rows)) // 8
        self.writes += 1

    def write_index(self, first_page, pages):
        assert pages and first_page + len(pages) // 8 <= MOST_PAGES
        assert all(number + count <= self.end for number, count in struct.iter_unpack("<II", pages))
        self.index[8 * first_page : 8 * first_page + len(pages)] = pages
        self.writes += 1

    def rows_of(self, page):
        """The bytes of the rows of a page, which lie in one chunk."""
        number, count = struct.unpack_from("<II", self.index, 8 * page)
        at = number % CHUNK_ROWS
        assert at + count <= CHUNK_ROWS
        return bytes(self.chunks[number // CHUNK_ROWS][at * 8 : (at + count) * 8])

    def find(self, place, inside):
        """The row of an address in bytes from the lowest one of the file; None if there is none."""
        if not 0 <= inside < place.pages * PAGE:
            return None
        rows = self.rows_of(place.page + inside // PAGE)
        low, high = 0, len(rows) // 8 - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if row(rows, middle).address <= inside else (low, middle - 1)
        return row(rows, low) if rows else None


def row(rows, number):
    """A row of some, as usdtkit.unwind.tables.Table has it."""
    address, offset, kinds, slot = ROW.unpack_from(rows, 8 * number)
    return Row(address, offset, kinds & 15, kinds >> 4, slot)


def mappings_of(entry):
    """The (start, bias, size, page, pages) of the mappings of a struct unwind_process, which is checked as a whole."""
    assert len(entry) == SIZE
    count, *_ = HEAD.unpack_from(entry)
    found = list(MAPPING.iter_unpack(entry[HEAD.size :]))
    assert all(mapping == (NO_MAPPING, 0, 0, 0, 0) for mapping in found[count:])
    starts = [start for start, *_ in found[:count]]
    assert starts == sorted(set(starts))
    return found[:count]


def find(maps, entry, address):
    """What the kernel finds for an address of a process: a row; None where it follows frame pointers.

    LookupError if the address is in no mapping.
    """
    inner = [mapping for mapping in mappings_of(entry) if mapping[0] <= address]
    if not inner or address - inner[-1][0] >= inner[-1][2]:
        raise LookupError(hex(address))
    _, bias, _, page, pages = inner[-1]
    return maps.find(Place(page, pages), (address - bias) % (1 << 64)) if pages else None
