"""Probes of a provider → the file that carries them: one that was shipped, one that is there, or a new one.

Input: the specs of `provider`. Output: path and content for `usdtkit._probe.load`. Made by `image`, kept by `files`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from usdtkit.errors import UnsupportedError
from usdtkit.probes import files, image
from usdtkit.probes.declaration import ProbeSpec

if TYPE_CHECKING:
    from usdtkit.probes.files import Check, Stored


class Wanted(NamedTuple):
    """The probes of one file: by their canonical `texts` it is found; `nop` is how sites are made."""

    provider: str
    texts: Sequence[str]
    specs: Callable[[], Sequence[ProbeSpec]]
    nop: str

    def file_name(self, nop: str) -> str:
        """What the file is called in the directories."""
        return image.file_name(self.provider, self.texts, machine=machine(), nop=nop)

    def build(self) -> bytes:
        """The bytes of the file. Raises UsageError where its docs are too long."""
        return image.build(self.provider, self.specs(), machine=machine(), nop=self.nop)


def possible() -> bool:
    """Whether provider files have a meaning on this system."""
    return machine() in image.MACHINES


def machine() -> str:
    """The architecture as the kernel calls it, or "" elsewhere than on Linux with 64 bits."""
    return os.uname().machine if sys.platform == "linux" and sys.maxsize > 2**32 else ""


def write(wanted: Wanted, path: str | os.PathLike[str] | None) -> Path:
    """Put the file at `path`, or where processes will look for it. Raises UsdtkitError."""
    if not possible():
        raise UnsupportedError("probe files have no meaning on this system: only on Linux on x86-64 or aarch64")
    if path is None:
        return _store(wanted).path
    absolute = Path(path).absolute()
    files.write(absolute, wanted.build())
    return absolute


def file(wanted: Wanted, shipped: str | None) -> tuple[Path | str, bytes, str]:
    """Path and content of the file to load, and what to warn of. Raises UnsupportedError where there can be none."""
    warning = ""
    if shipped is not None:
        try:
            # Whatever kernel it was built for: a site that is not the best one here still works.
            return *files.find(Path(shipped).absolute(), _check(wanted, *image.NOPS)), ""
        except UnsupportedError as error:
            warning = f"{error.message}. "
    try:
        return *_store(wanted), warning
    except UnsupportedError as error:
        content = wanted.build()
        path = files.store_in_memory(wanted.provider, content)
        warning += f"{error.message}; the probes of {wanted.provider} are in memory only, at {path}. {error.hint}"
        return path, content, warning


def stubs(content: bytes) -> tuple[int, int, int, int]:
    """Of a file, what `usdtkit._probe.load` has to know of its stubs.

    The first byte of a site, the offset of the first stub, bytes from stub to stub, and bytes of text that a forked
    child needs anew: of five-byte sites only, else 0.
    """
    offset, size = image.text_of(content)
    fast = content.startswith(image.MACHINES["x86_64"].fast, offset)
    return content[offset], offset, image.STRIDE, size if fast else 0


def _store(wanted: Wanted) -> Stored:
    name = wanted.file_name(wanted.nop)
    return files.store(name, wanted.build, lambda content: image.is_whole(content, name))


def _check(wanted: Wanted, *nops: str) -> Check:
    names = [wanted.file_name(nop) for nop in nops]
    return lambda content: any(image.is_whole(content, name) for name in names)
