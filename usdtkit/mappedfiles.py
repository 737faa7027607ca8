"""A mapping of a process → the file behind it, open.

Input: a process, and a `usdtkit.maps.Mapping` of it. Output: `OpenFile`, which is certainly the file that is mapped,
also if it was deleted, replaced, or lies in a container. `usdtkit.scan` attaches to such files, `usdtkit.unwind` and
`usdtkit.trace` read them.
"""

# ruff: noqa: PTH123 every start that attaches imports this module, and importing pathlib takes long

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from usdtkit.errors import NotFoundError, PrivilegeError, as_root
from usdtkit.files import OpenFile
from usdtkit.maps import Mapping, executable_mappings, mappings_in, maps_of

VDSO = "[vdso]"
"""What maps calls the code that the kernel maps into every process."""


@contextmanager
def inspecting(pid: int) -> Iterator[None]:
    """While something is read of a process: that it has ended is NotFoundError, that it is another's PrivilegeError."""
    try:
        yield
    except (FileNotFoundError, ProcessLookupError):
        raise NotFoundError(f"no process {pid}", hint="pgrep -a NAME finds the ID of a process") from None
    except PermissionError:
        raise PrivilegeError(
            f"process {pid}: its memory map may not be read", hint=as_root("with CAP_SYS_PTRACE")
        ) from None


def open_mapping(pid: int | str, mapping: Mapping) -> OpenFile:
    """Open the file of an executable mapping that a process has made.

    `mapping` may have another extent by now, and the process may have ended: then the file is looked for by its name,
    and must be the one that was mapped. NotFoundError where that cannot be had, PrivilegeError, ElfError.
    """
    denied: PrivilegeError | None = None
    for path, is_certain in _ways(pid, mapping):
        try:
            file = OpenFile.open(path)
        except PrivilegeError as error:
            denied = denied or error
            continue
        except NotFoundError:
            continue
        if is_certain or is_mapped(file, mapping):
            return file
    raise denied or NotFoundError(f"{mapping.name}, which process {pid} has mapped, is gone")


def _ways(pid: int | str, mapping: Mapping) -> Iterator[tuple[str, bool]]:
    """Paths that may lead to a mapped file, and whether they certainly do."""
    yield f"/proc/{pid}/map_files/{mapping.span}", True
    with suppress(OSError):  # the loader maps a library as a whole, and then parts of it again
        for now in mappings_in(maps_of(pid), mapping.identity):
            if now.is_executable and now.span != mapping.span:
                yield f"/proc/{pid}/map_files/{now.span}", True
                break
    if mapping.name.startswith("/"):
        yield f"/proc/{pid}/root{mapping.name}", False
        yield mapping.name, False


def is_mapped(file: OpenFile, mapping: Mapping) -> bool:
    """Whether an open file is the one that was mapped, and not one that the process has mapped in its place since."""
    if file.key == (mapping.identity.device, mapping.identity.inode):
        return True  # on overlayfs and btrfs the kernel shows mappings of other devices
    from usdtkit.mappings import identities  # lazy: loading the compiled shim takes longer than most scans

    return identities([file.descriptor]) == [mapping.identity]


def open_vdso() -> OpenFile | None:
    """Copy the code that the kernel maps into every process into an open file; None if this process has none."""
    try:
        mapping = next((area for area in executable_mappings(maps_of("self")) if area.name == VDSO), None)
        if mapping is None:
            return None
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            memory.seek(mapping.start)
            image = memory.read(mapping.end - mapping.start)
        descriptor = os.memfd_create("vdso", os.MFD_CLOEXEC)
    except OSError:
        return None
    os.write(descriptor, image)
    return OpenFile(VDSO, descriptor)
