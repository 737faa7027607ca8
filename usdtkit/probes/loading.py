"""Probes of a provider → the file that carries them: one that was shipped, one that is there, or a new one.

Input: what `provider` has declared. Output: a path, and what `usdtkit._probe.load` has to know of the file. Made by
`image`, kept by `files`.
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
from usdtkit.probes.declaration import ProbeSpec

if TYPE_CHECKING:
    from usdtkit.probes.files import Stored

Stubs = tuple[int, int, int, int]
"""The first byte of a site, the offset of the first stub, bytes from stub to stub, and bytes of text that a forked
child needs anew: of five-byte sites only, else 0."""


class Wanted(NamedTuple):
    """The probes of one file: by their canonical `text` it is found; `nop` is how sites are made."""

    provider: str
    text: str
    specs: Callable[[], Sequence[ProbeSpec]]
    nop: str

    def possible(self) -> bool:
        """Whether provider files have a meaning on this system."""
        return machine() in image.MACHINES

    def write(self, path: str | os.PathLike[str] | None) -> Path:
        """Put the file at `path`, or where processes will look for it. Raises UsdtkitError."""
        if not self.possible():
            raise UnsupportedError("probe files have no meaning on this system: only on Linux on x86-64 or aarch64")
        if path is None:
            return Path(self._store().path)
        absolute = Path(path).absolute()
        files.write(absolute, self._build())
        return absolute

    def file(self, shipped: str | None) -> tuple[str, Stubs, str]:
        """The path of the file to load, its stubs, and what to warn of. Raises UnsupportedError where there is none."""
        warning = ""
        if shipped is not None:
            # Whatever kernel it was built for: a site that is not the best one here still works.
            names = [self._file_name(nop) for nop in image.NOPS]
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
    """The architecture as the kernel calls it, or "" elsewhere than on Linux with 64 bits."""
    return os.uname().machine if sys.platform == "linux" and sys.maxsize > 2**32 else ""


def _stubs(content: bytes) -> Stubs:
    offset, size = image.text_of(content)
    fast = content.startswith(image.MACHINES["x86_64"].fast, offset)
    return content[offset], offset, image.STRIDE, size if fast else 0
