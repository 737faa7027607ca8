"""A map in the kernel: created from its description, read in batches, freed with its descriptor.

Input: `MapDescription` from `usdtkit.bpf.compiler`. Output: keys and values as bytes, which `usdtkit.trace` decodes.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator, Mapping
from functools import cache

from usdtkit._ffi import ENOTSUPP, check, ffi, lib
from usdtkit.bpf.bytecode import MapDescription
from usdtkit.bpf.uapi import MAP_ARRAY, MAP_HASH, MAP_LRU_HASH, MAP_PERCPU_ARRAY, MAP_PERCPU_HASH, MMAPABLE, NO_PREALLOC
from usdtkit.errors import UsdtkitError
from usdtkit.kernel.features import has_uprobe_multi

TABLES = (MAP_HASH, MAP_PERCPU_HASH, MAP_LRU_HASH)
"""Types of maps that can become full."""

BATCH = 4096
# Memory as it comes: clearing a megabyte takes longer than reading a table with few entries.
_uncleared = ffi.new_allocator(should_clear_after_alloc=False)


@cache
def possible_cpus() -> int:
    """How many values a per-CPU entry has: one for each CPU that the kernel thinks possible, online or not."""
    with open("/sys/devices/system/cpu/possible") as file:  # noqa: PTH123 importing pathlib takes long
        ranges = file.read().strip()
    return int(ranges.replace(",", "-").split("-")[-1]) + 1


class Map:
    """One BPF map. Closing it frees it, unless a program that uses it is still loaded."""

    def __init__(self, description: MapDescription, max_entries: int | None = None) -> None:
        self.name = description.name
        self.type = description.type
        self.key_size = description.key_size
        self.value_size = description.value_size
        self.max_entries = description.max_entries if max_entries is None else max_entries
        flags = description.flags
        if flags & NO_PREALLOC and not has_uprobe_multi():
            flags &= ~NO_PREALLOC  # older kernels allocate in ways that can hang within a program
        sizes = (self.type, self.key_size, self.value_size, self.max_entries)
        made = _create(sizes, flags, description.inner, self.name)
        if made in (-errno.ENOMEM, -errno.E2BIG):
            raise UsdtkitError(
                f"the kernel has no memory for the BPF map {self.name} of {self.max_entries:,} entries",
                hint="use a smaller capacity",
            )
        self.fd = check(made, f"creating the BPF map {self.name}")

    def close(self) -> None:
        """Give up the map; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def stride(self) -> int:
        """Bytes of one entry's value as the kernel returns it: of per-CPU maps, the values of all CPUs in a row."""
        if self.type in (MAP_PERCPU_HASH, MAP_PERCPU_ARRAY):
            return (self.value_size + 7) // 8 * 8 * possible_cpus()
        return self.value_size

    def memory(self) -> mmap.mmap:
        """The values of an array that was made with MMAPABLE, to read and write in place."""
        return mapped(self.fd, self.max_entries * self.value_size)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._check_sizes(key, value)
        check(lib.usdtkit_map_update(self.fd, key, value), f"writing to the BPF map {self.name}")

    def update(self, entries: Mapping[bytes, bytes]) -> None:
        """Write many entries, where the kernel can with one call. When it has written to an array of maps, it waits for
        the programs that run, and that takes longer than all else."""
        for key, value in entries.items():
            self._check_sizes(key, value)
        packed = b"".join(entries), b"".join(entries.values()), len(entries)
        if lib.usdtkit_map_update_batch(self.fd, *packed) < 0:  # it is too old, or the error is that of an entry
            for key, value in entries.items():
                self[key] = value

    def insert(self, key: bytes, value: bytes) -> None:
        """Write an entry, unless the key is there, or there is no room for it."""
        self._check_sizes(key, value)
        result = lib.usdtkit_map_insert(self.fd, key, value)
        if result not in (-errno.EEXIST, -errno.E2BIG):
            check(result, f"writing to the BPF map {self.name}")

    def __delitem__(self, key: bytes) -> None:
        """Delete a key, if it is there."""
        self._check_sizes(key)
        result = lib.usdtkit_map_delete(self.fd, key)
        if result != -errno.ENOENT:
            check(result, f"deleting from the BPF map {self.name}")

    def __getitem__(self, key: bytes) -> bytes:
        """The value of a key, `stride` bytes. KeyError where there is no such key."""
        self._check_sizes(key)
        value = ffi.new("char[]", self.stride)
        result = lib.usdtkit_map_lookup(self.fd, key, value)
        if result == -errno.ENOENT:
            raise KeyError(key)
        check(result, f"reading the BPF map {self.name}")
        return bytes(ffi.buffer(value))

    def __contains__(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry, read in batches. An entry that is added or removed meanwhile may be seen or missed."""
        batch = min(BATCH, self.max_entries)
        keys = _uncleared("char[]", self.key_size * batch)
        values = _uncleared("char[]", self.stride * batch)
        # A hash map's cursor is a bucket (4 bytes), an array's is a key.
        cursor = ffi.new("char[]", max(self.key_size, 8))
        count = ffi.new("uint32_t *")
        first, result = True, 1
        while result:
            count[0] = batch
            result = lib.usdtkit_map_lookup_batch(self.fd, first, cursor, keys, values, count)
            if first and result in (-errno.EINVAL, -ENOTSUPP):  # before Linux 5.6, of arrays before 5.13
                yield from self._items_one_by_one()
                return
            check(result, f"reading the BPF map {self.name}")
            first = False
            key_bytes, value_bytes = ffi.buffer(keys), ffi.buffer(values)
            for at in range(count[0]):
                yield (
                    key_bytes[at * self.key_size : (at + 1) * self.key_size],
                    value_bytes[at * self.stride : (at + 1) * self.stride],
                )

    def _items_one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        key = ffi.NULL
        following = ffi.new("char[]", self.key_size)
        while lib.usdtkit_map_next_key(self.fd, key, following) == 0:
            next_key = bytes(ffi.buffer(following))
            try:
                yield next_key, self[next_key]
            except KeyError:  # deleted since
                continue
            key = ffi.new("char[]", next_key)

    def _check_sizes(self, key: bytes, value: bytes | None = None) -> None:
        # The kernel copies as many bytes as the map says, however many there are.
        if len(key) != self.key_size or (value is not None and len(value) != self.stride):
            raise ValueError(f"map {self.name}: keys have {self.key_size} bytes, values {self.stride}")


def new_value(size: int, name: str) -> int:
    """An array with one value of so many bytes, as the values of an array of maps are: its descriptor, which can be
    `mapped`, or a negative errno."""
    return int(lib.usdtkit_map_create(MAP_ARRAY, 4, size, 1, MMAPABLE, 0, name.encode()))


def mapped(descriptor: int, size: int) -> mmap.mmap:
    """The memory of an array that was made with MMAPABLE."""
    return mmap.mmap(descriptor, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


def _create(sizes: tuple[int, int, int, int], flags: int, inner: int, name: str) -> int:
    """A map, of whose values `inner` is the size if they are arrays: its descriptor, or a negative errno."""
    if not inner:
        return int(lib.usdtkit_map_create(*sizes, flags, 0, name.encode()))
    example = new_value(inner, name)
    if example < 0:
        return example
    try:
        return int(lib.usdtkit_map_create(*sizes, flags, example, name.encode()))
    finally:
        os.close(example)
