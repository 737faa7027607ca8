"""The files that traced processes have mapped, held open → names of the functions in them.

Input: the mappings of `trace.memory`, and the symbol tables of `usdtkit.elf.lookup`. Output: names for addresses of a
file, also after the process has ended or the file was deleted. A session has one `Files`. The symbols of a file are
read when a name in it is asked for.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain, count

from usdtkit import processes, scan
from usdtkit.elf.debugfiles import debug_images
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.mappedfiles import VDSO, is_mapped, open_mapping, open_vdso
from usdtkit.maps import Mapping
from usdtkit.model import Target

MOST_FILES = 256
MOST_TABLE_BYTES = 128 << 20
MOST_NAMES = 1 << 16

Key = tuple[int, int, str]
"""Device, inode and path of a mapping: the path because some file systems number each of their parts anew."""


class Tables:
    """The symbols of files, and the names that were looked up, in a bounded amount of memory."""

    def __init__(self) -> None:
        self._tables: OrderedDict[int, SymbolTable] = OrderedDict()
        self._names: dict[tuple[int, int], tuple[str, int]] = {}
        self._bytes = 0

    def table(self, number: int, load: Callable[[], SymbolTable]) -> SymbolTable:
        """The symbols of the file with this number. `load` reads them where they are not in memory."""
        if number in self._tables:
            self._tables.move_to_end(number)
            return self._tables[number]
        table = self._tables[number] = load()
        self._bytes += table.size
        while len(self._tables) > 1 and self._bytes > MOST_TABLE_BYTES:
            self._bytes -= self._tables.popitem(last=False)[1].size
        return table

    def name(self, number: int, table: SymbolTable, address: int) -> tuple[str, int]:
        """(name, offset) of the function at a virtual address of a file, ("", address) where it has no symbol."""
        name = self._names.get((number, address))
        if name is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            name = self._names[number, address] = table.find(address) or ("", address)
        return name


class MappedFile:
    """One file that some process executes. It is held open, so that its inode is not given to another file."""

    def __init__(self, tables: Tables, number: int, name: str, file: OpenFile, root: str = "") -> None:
        """`name` is the path that the process uses, `number` is the number of the file in `tables`. `root` is the root
        directory of a process in a container, where its debug files may lie; "" is ours."""
        self.name = name.removesuffix(" (deleted)")
        self._root = root
        self._tables = tables
        self._number = number
        self._file = file
        self._build_id: str | None = None
        self._damaged = False

    def has_changed(self) -> bool:
        """Whether somebody has written to it since it was opened."""
        return self._file.is_rewritten

    def find(self, file_offset: int) -> tuple[str, int]:
        """(name, offset in it) of the function at an offset of the file; without a symbol ("", virtual address)."""
        table = self.table()
        address = None if table is None else table.address(file_offset)
        if table is None or address is None:
            return "", file_offset
        return self._tables.name(self._number, table, address)

    def source(self, file_offset: int) -> tuple[str, int | None]:
        """(file, line) of the source at an offset of a Go program; ("", None) if it is not known."""
        table = self.table()
        address = None if table is None else table.address(file_offset)
        file, _, line = ("" if table is None or address is None else table.source(address)).rpartition(":")
        return (file, int(line)) if file else ("", None)

    def table(self) -> SymbolTable | None:
        """Its symbols. None where it is not an ELF file, or cannot be read."""
        if self._damaged:
            return None
        try:
            return self._tables.table(self._number, self._load)
        except UsdtkitError:
            self._damaged = True
            return None

    def build_id(self) -> str:
        """Its build-id in hexadecimal, "" where it has none."""
        if self._build_id is None:
            try:
                with self._image() as image:
                    self._build_id = image.build_id
            except ElfError:
                self._build_id = ""
        return self._build_id

    def _image(self) -> Image:
        return Image(f"{self._root}{self.name}", self._file)

    def _load(self) -> SymbolTable:
        with ExitStack() as opened:
            image = opened.enter_context(self._image())
            debug = [opened.enter_context(debug_image) for debug_image in debug_images(image)]
            return SymbolTable(image, *debug)


class Files:
    """The mapped files of a session, and a bounded amount of their symbols."""

    def __init__(self, traced: Iterable[OpenFile | str] = ()) -> None:
        """`traced`: open files or paths, in which names can be looked up when no process maps them any more."""
        opened = (OpenFile.open(each) if isinstance(each, str) else each for each in traced)
        self._traced: dict[OpenFile, MappedFile | None] = dict.fromkeys(opened)
        self._tables = Tables()
        self._numbers = count()
        self._files: dict[Key, MappedFile] = {}
        self._by_build_id: dict[str, MappedFile | None] = {}
        self._vdso: MappedFile | None = None

    def open(self, pid: int, mapping: Mapping) -> MappedFile | None:
        """The file behind a mapping of a process; None where it cannot be opened."""
        key = (mapping.identity.device, mapping.identity.inode, mapping.name)
        known = self._files.get(key)
        if known is not None and not known.has_changed():
            return known
        if len(self._files) >= MOST_FILES:
            return None
        try:
            file = open_mapping(pid, mapping)
        except UsdtkitError:
            return None
        if not is_mapped(file, mapping):  # other processes may have mapped the file that was there
            return None
        self._files[key] = self._mapped(mapping.name, file, _root_of(pid))
        return self._files[key]

    def traced(self, file: OpenFile) -> MappedFile:
        """A file that is traced."""
        known = self._traced.get(file)
        if known is None:
            known = self._traced[file] = self._mapped(file.path, file)
        return known

    def vdso(self) -> MappedFile | None:
        """The code that the kernel maps into every process; it is read from this one."""
        if self._vdso is None:
            file = open_vdso()
            if file is None:
                return None
            self._vdso = self._mapped(VDSO, file)
        return self._vdso

    def with_build_id(self, build_id: str) -> MappedFile | None:
        """A file with this build-id: among those that are open, that are traced, or that any process maps now."""
        if build_id not in self._by_build_id:
            for file in [*self._files.values()]:  # another thread may open more
                self._by_build_id.setdefault(file.build_id(), file)
        if build_id not in self._by_build_id:
            for other in chain(map(self.traced, [*self._traced]), map(self._look_into, _mapped_now())):
                if other is not None and other.build_id() == build_id:
                    self._by_build_id[build_id] = other
                    break
        return self._by_build_id.setdefault(build_id, None)

    def fixed_at(self, address: int) -> tuple[MappedFile | None, int]:
        """The traced program that is always loaded at the same addresses and has code at this one, and the offset in
        its file; (None, 0) unless it is exactly one."""
        found = []
        for file in map(self.traced, [*self._traced]):
            table = file.table()
            if table is not None and (offset := table.fixed_offset(address)) is not None:
                found.append((file, offset))
        return found[0] if len(found) == 1 else (None, 0)

    def _look_into(self, target: Target) -> MappedFile | None:
        try:
            return self._mapped(target.path, scan.open_target(target)[-1])
        except UsdtkitError:  # no process has it any more, or it may not be opened
            return None

    def _mapped(self, name: str, file: OpenFile, root: str = "") -> MappedFile:
        return MappedFile(self._tables, next(self._numbers), name, file, root)


def _root_of(pid: int) -> str:
    """The path of a process's root directory, "" where it is ours."""
    root = f"/proc/{pid}/root"
    try:
        return "" if os.path.samefile(root, "/") else root  # noqa: PTH121  importing pathlib takes long
    except OSError:  # the process has ended, or may not be inspected
        return ""


def _mapped_now() -> list[Target]:
    """All files that processes execute, as far as we may look."""
    files = scan.Scan()
    for pid in processes.running_pids():
        try:
            files.add(pid)
        except (NotFoundError, PrivilegeError):
            continue
    return files.targets()
