"""A directory → the ELF files below it: paths in, paths out. Used by `usdtkit.resolve`.

Each inode comes once, and symbolic links are not followed. Files that may not be read are passed over. So are files
whose names say that they are text, pictures or archives, because on a cold disk opening files takes most of the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

Progress = Callable[[int], None]
"""Called with the number of files looked at so far."""

# They contain no files of programs, and have no end.
_PSEUDO = frozenset(("/proc", "/sys"))
_EVERY = 256
_NEVER_ELF = (
    *(".c", ".cc", ".conf", ".css", ".go", ".h", ".hpp", ".html", ".java", ".js", ".json", ".md", ".mo", ".po"),
    *(
        ".py",
        ".pyc",
        ".pyi",
        ".rs",
        ".rst",
        ".svg",
        ".ts",
        ".txt",
        ".xml",
        ".yaml",
        ".gif",
        ".gz",
        ".jpg",
        ".pdf",
        ".png",
    ),
)


def elf_files(directory: str, *, progress: Progress | None = None) -> Iterator[str]:
    """Yield the paths of all ELF files below a directory, in the order of their names within each directory.

    `progress` is called every few hundred files.
    """
    seen: set[tuple[int, int]] = set()
    for count, path in enumerate(_files(directory, seen), 1):
        if progress is not None and count % _EVERY == 0:
            progress(count)
        if _is_elf(path):
            yield path


def _files(directory: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        if current in _PSEUDO:
            continue
        try:
            with os.scandir(current) as entries:
                by_name = sorted(entries, key=lambda entry: entry.name)
        except OSError:  # it may not be read, or is gone
            continue
        below = []
        for entry in by_name:
            try:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif not entry.name.endswith(_NEVER_ELF) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    key = status.st_dev, status.st_ino
                    if status.st_size > 64 and (status.st_nlink == 1 or key not in seen):
                        if status.st_nlink > 1:
                            seen.add(key)
                        yield entry.path
            except OSError:
                continue
        waiting += reversed(below)


def _is_elf(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return os.pread(descriptor, 4, 0) == b"\x7fELF"
    except OSError:
        return False
    finally:
        os.close(descriptor)
