"""The files that traced processes have mapped, held open → names of the functions in them.

Input: mappings of `trace.memory`, and `usdtkit.elf.lookup`. Output: names for addresses of a file, also when the
process has ended or the file was deleted since. One `Files` a session; tables are read when a name is first asked for.
"""

from __future__ import annotations

import itertools
import os
import stat
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from usdtkit import processes
from usdtkit.elf.debugfiles import debug_images
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable
from usdtkit.elf.sites import keeps_frame_pointer
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UsdtkitError

MOST_FILES = 256
MOST_TABLE_BYTES = 128 << 20
MOST_NAMES = 1 << 16

Key = tuple[int, int, str]
"""Device, inode and path of a mapping: the path because some file systems number each of their parts anew."""


class Tables:
    """What was read of files, bounded in memory: their symbols, and names that were asked for."""

    def __init__(self) -> None:
        self._tables: OrderedDict[int, SymbolTable] = OrderedDict()
        self._names: dict[tuple[int, int], tuple[str, int]] = {}
        self._bytes = 0

    def table(self, number: int, load: Callable[[], SymbolTable]) -> SymbolTable:
        """The symbols of the file with this number, which `load` reads where they are not in memory."""
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
        found = self._names.get((number, address))
        if found is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            found = self._names[number, address] = table.find(address) or ("", address)
        return found


class MappedFile:
    """One file that some process executes, held open: its inode stays what it is."""

    def __init__(self, tables: Tables, number: int, name: str, descriptor: int, root: str = "") -> None:
        """Take over `descriptor`; `name` is what the process calls the file, `number` its own in `tables`.

        `root`: of a process in a container, where its root can be looked into, for debug files that lie there.
        """
        self.name = name.removesuffix(" (deleted)")
        self._root = root
        self._tables = tables
        self._number = number
        self._descriptor = descriptor
        self._finalizer = weakref.finalize(self, os.close, descriptor)
        self.changed_at = os.fstat(descriptor).st_mtime_ns
        self._build_id: str | None = None
        self._damaged = False

    def has_changed(self) -> bool:
        """Whether somebody has written to it since it was opened."""
        return os.fstat(self._descriptor).st_mtime_ns != self.changed_at

    def find(self, file_offset: int) -> tuple[str, int]:
        """(name, offset in it) of the function at an offset of the file; without a symbol ("", virtual address)."""
        table = self.table()
        address = None if table is None else table.address(file_offset)
        if table is None or address is None:
            return "", file_offset
        return self._tables.name(self._number, table, address)

    def table(self) -> SymbolTable | None:
        """Its symbols; None where it is no ELF file that can be read."""
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

    def keeps_frame_pointer(self, function: str) -> bool | None:
        """Whether a function of this name begins with its frame pointer; None of no function, or no ELF file."""
        try:
            with self._image() as image:
                return keeps_frame_pointer(image, function)
        except ElfError:
            return None

    def _image(self) -> Image:
        descriptor = os.dup(self._descriptor)
        try:
            return Image(f"{self._root}{self.name}", descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def _load(self) -> SymbolTable:
        with ExitStack() as opened:
            image = opened.enter_context(self._image())
            debug = [opened.enter_context(each) for each in debug_images(image)]
            return SymbolTable(image, *debug)


class Files:
    """The mapped files of a session, and a bounded amount of what was read of them."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """`paths`: files that are traced, which names may be asked of when no process maps them any more."""
        self._paths = tuple(dict.fromkeys(paths))
        self._tables = Tables()
        self._numbers = itertools.count()
        self._files: dict[Key, MappedFile] = {}
        self._at_path: dict[str, MappedFile | None] = {}
        self._by_build_id: dict[str, MappedFile | None] = {}
        self._vdso: MappedFile | None = None

    def open(self, pid: int, span: str, key: Key) -> MappedFile | None:
        """The file behind a mapping `span` (START-END) of a process; None where it cannot be opened."""
        known = self._files.get(key)
        if known is not None and not known.has_changed():
            return known
        if len(self._files) >= MOST_FILES:
            return None
        # The first is the very inode, also when it was deleted or replaced, but asks for privilege.
        for path in (f"/proc/{pid}/map_files/{span}", f"/proc/{pid}/root{key[2]}"):
            descriptor = _open_regular(path)
            if descriptor is None:
                continue
            if "/root/" in path and os.fstat(descriptor).st_ino != key[1]:
                os.close(descriptor)
                continue
            self._files[key] = self._file(key[2], descriptor, _root_of(pid))
            return self._files[key]
        return None

    def at_path(self, path: str) -> MappedFile | None:
        """The file at a path, as it is when it is first asked for."""
        if path not in self._at_path:
            descriptor = _open_regular(path)
            self._at_path[path] = None if descriptor is None else self._file(path, descriptor)
        return self._at_path[path]

    def vdso(self) -> MappedFile | None:
        """The functions that the kernel maps into every process: ours has the same."""
        if self._vdso is None:
            image = _own_vdso()
            if image is None:
                return None
            descriptor = os.memfd_create("vdso", os.MFD_CLOEXEC)
            os.write(descriptor, image)
            self._vdso = self._file("[vdso]", descriptor)
        return self._vdso

    def with_build_id(self, build_id: str) -> MappedFile | None:
        """A file with this build-id: among those that are open, that are traced, or that any process maps now."""
        if build_id not in self._by_build_id:
            for file in self._files.values():
                self._by_build_id.setdefault(file.build_id(), file)
        if build_id not in self._by_build_id:
            for path in dict.fromkeys([*self._paths, *_mapped_now()]):
                descriptor = _open_regular(path)
                if descriptor is not None:
                    file = self._file(path, descriptor)
                    if file.build_id() == build_id:
                        self._by_build_id[build_id] = file
                        break
        return self._by_build_id.setdefault(build_id, None)

    def _file(self, name: str, descriptor: int, root: str = "") -> MappedFile:
        return MappedFile(self._tables, next(self._numbers), name, descriptor, root)


def _root_of(pid: int) -> str:
    """Where the root of a process lies, "" where it is ours."""
    root = Path(f"/proc/{pid}/root")
    try:
        return "" if root.samefile("/") else str(root)
    except OSError:  # it has ended, or may not be looked into
        return ""


def _mapped_now() -> list[str]:
    """Paths of all files that processes execute, as far as we may look."""
    scan = processes.Scan()
    for pid in processes.running_pids():
        try:
            scan.add(pid)
        except (NotFoundError, PrivilegeError):
            continue
    return [target.path for target in scan.targets()]


def _open_regular(path: str) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _own_vdso() -> bytes | None:
    try:
        with Path("/proc/self/maps").open("rb") as maps, Path("/proc/self/mem").open("rb", buffering=0) as memory:
            for line in maps:
                if line.endswith(b"[vdso]\n"):
                    start, end = (int(address, 16) for address in line.split()[0].split(b"-"))
                    memory.seek(start)
                    return memory.read(end - start)
    except OSError:
        return None
    return None
