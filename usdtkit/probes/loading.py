"""Probes of a provider → the file that carries them: one that was shipped, one that is stored already, or a new one.

Input: probes that `publishing` has to load. Output: a path, and what `usdtkit._probe.load` has to know of the file,
whose bytes `image` makes and which `files` stores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from usdtkit.errors import UnsupportedError
from usdtkit.probes import files, image
from usdtkit.probes.declaration import NOPS, ProbeSpec

if TYPE_CHECKING:
    from usdtkit.probes.files import Stored


class Stubs(NamedTuple):
    """Where the stubs of a file are, in bytes: the first one at `offset`, each further one `stride` behind the last.

    `pristine` is the first byte of each site. A forked child has to map `renewed` bytes of stubs anew: all of them if
    the sites are five-byte nops, else none.
    """

    pristine: int
    offset: int
    stride: int
    renewed: int


class FileSpec(NamedTuple):
    """A file of probes. Its name depends on their canonical `text`; `nop` is the kind of sites that it has."""

    provider: str
    text: str
    specs: Callable[[], Sequence[ProbeSpec]]
    nop: str

    def is_supported(self) -> bool:
        """Return whether this system can load provider files."""
        return machine() in image.MACHINES

    def write(self, path: str | os.PathLike[str] | None) -> Path:
        """Write the file to `path`, or to where processes look for it, and return its path. Raises UsdtkitError."""
        if not self.is_supported():
            raise UnsupportedError("probe files are only supported on Linux on x86-64 and aarch64")
        if path is None:
            return Path(self._store().path)
        absolute = Path(path).absolute()
        files.write(absolute, self._build())
        return absolute

    def provide(self, shipped: str | None) -> tuple[str, Stubs, str]:
        """Return the path of a file to load, its stubs, and a warning or an empty string.

        That is the `shipped` one if it holds these probes; else one in a directory where tracers look; else one in
        memory. Raises UnsupportedError if not even that is possible.
        """
        warning = ""
        if shipped is not None:
            # A file that was built with the other nop will do: its sites work on every kernel.
            names = [self._file_name(nop) for nop in NOPS]
            try:
                path, content = files.find(
                    Path(shipped).absolute(), lambda content: any(image.is_whole(content, name) for name in names)
                )
                return path, _stubs(content), ""
            except UnsupportedError as error:
                warning = f"{error.message}. "
        try:
            path, content = self._store()
        except UnsupportedError as error:
            content = self._build()
            path = files.store_in_memory(self.provider, content)
            warning += f"{error.message}; the probes of {self.provider} are in memory only, at {path}. {error.hint}"
        return path, _stubs(content), warning

    def _store(self) -> Stored:
        name = self._file_name(self.nop)
        return files.store(name, self._build, lambda content: image.is_whole(content, name))

    def _file_name(self, nop: str) -> str:
        return image.file_name(self.provider, self.text, machine=machine(), nop=nop)

    def _build(self) -> bytes:
        return image.build(self.provider, self.specs(), machine=machine(), nop=self.nop)


@cache
def machine() -> str:
    """Return the kernel's name of the architecture, or "" unless this is Linux with 64 bits."""
    return os.uname().machine if sys.platform == "linux" and sys.maxsize > 2**32 else ""


def _stubs(content: bytes) -> Stubs:
    offset, size = image.text_of(content)
    fast = content.startswith(image.MACHINES["x86_64"].fast, offset)
    return Stubs(content[offset], offset, image.STRIDE, size if fast else 0)
