"""What is described in a file → its table, from the cache on disk if it is there.

Input `usdtkit.unwind.tables.Description`; output `Table`; `usdtkit.cache` holds the entries. The key is a hash of all
that the table is made of, which was read from the file. It is not the build-id: anybody can write a file
with the build-id of another one, whose table would then be used for the stacks of everybody who runs the other. Content
that is not as it was written makes no table, and is written anew. Small tables are made sooner than found.
"""

from __future__ import annotations

import struct
from zlib import crc32

from usdtkit import cache
from usdtkit.unwind.tables import PAGE, REASONS, ROW, Description, Table, make_table

FORMAT = 1  # to be raised when rows mean something else, or what is stored is arranged in another way
WORTH = 1 << 18
"""Bytes of call frame information from which on a table is kept on disk."""

_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct(f"<QQ{len(REASONS)}Q")  # bytes of rows and of the index, and the counts


def table_of(described: Description, key: str) -> Table:
    """Return the table of a file, whose key is given. ElfError, as `usdtkit.unwind.tables.make_table`."""
    if sum(len(section.data) for section in described.sections) < WORTH:
        return make_table(described)
    content = cache.load(key, cache.TABLES)
    table = None if content is None else _unpacked(described, content)
    if table is None:
        table = make_table(described)
        cache.store(key, _packed(table), cache.TABLES)
    return table


def key_of(described: Description) -> str:
    """The key of a table: two files with the same key have the same one."""
    numbers = [(each.address, len(each.data), each.kind) for each in described.sections]
    head = (FORMAT, described.machine, described.lowest, described.end, *described.ranges, *numbers)
    return cache.key_of(repr(head).encode(), *(section.data for section in described.sections))


def _packed(table: Table) -> bytes:
    content = _HEAD.pack(len(table.rows), len(table.index), *table.counts.values()) + table.rows + table.index
    return _CHECKSUM.pack(crc32(content)) + content


def _unpacked(described: Description, stored: bytes) -> Table | None:
    content = memoryview(stored)[_CHECKSUM.size :]
    if len(content) < _HEAD.size or _CHECKSUM.unpack_from(stored) != (crc32(content),):
        return None
    rows_size, index_size, *counts = _HEAD.unpack_from(content)
    rows, index = content[_HEAD.size :][:rows_size], content[_HEAD.size + rows_size :]
    pages = -(-described.end // PAGE)
    if not rows or len(rows) % ROW.size or len(index) != index_size or len(index) != 4 * (pages + 1):
        return None
    named = dict(zip(REASONS, counts, strict=True))
    return Table(described.machine, described.lowest, bytes(rows), bytes(index), described.ranges, named)
