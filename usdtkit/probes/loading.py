"""Probes of a provider → the file that carries them: one that was shipped, one that is there, or a new one.

Input: the specs of `provider`. Output: path and content for `usdtkit._probe.load`. Made by `image`, kept by `files`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from usdtkit.errors import UnsupportedError
from usdtkit.probes import files, image
from usdtkit.probes.declaration import ProbeSpec

if TYPE_CHECKING:
    from usdtkit.probes.files import Check, Stored

_Value = TypeVar("_Value")


def possible() -> bool:
    """Whether provider files have a meaning on this system."""
    return machine() in image.MACHINES


def machine() -> str:
    """The architecture as the kernel calls it, or "" elsewhere than on Linux with 64 bits."""
    return os.uname().machine if sys.platform == "linux" and sys.maxsize > 2**32 else ""


def write(name: str, specs: Sequence[ProbeSpec], nop: str, path: str | os.PathLike[str] | None) -> Path:
    """Put the file at `path`, or where processes will look for it. Raises UsdtkitError."""
    if not possible():
        raise UnsupportedError("probe files have no meaning on this system: only on Linux on x86-64 or aarch64")
    if path is None:
        return _store(name, specs, nop).path
    absolute = Path(path).absolute()
    files.write(absolute, image.build(name, specs, machine=machine(), nop=nop))
    return absolute


def file(name: str, specs: Sequence[ProbeSpec], nop: str, shipped: str | None) -> tuple[Path | str, bytes, str]:
    """Path and content of the file to load, and what to warn of. Raises UnsupportedError where there can be none."""
    warning = ""
    if shipped is not None:
        try:
            # Whatever kernel it was built for: a site that is not the best one here still works.
            return *files.find(Path(shipped).absolute(), _check(name, specs, *image.NOPS)), ""
        except UnsupportedError as error:
            warning = f"{error.message}. "
    try:
        return *_store(name, specs, nop), warning
    except UnsupportedError as error:
        content = image.build(name, specs, machine=machine(), nop=nop)
        path = files.store_in_memory(name, content)
        warning += f"{error.message}; the probes of {name} are in memory only, at {path}. {error.hint}"
        return path, content, warning


def symbols(name: str, probes: Mapping[str, _Value]) -> dict[str, _Value]:
    """The probes by the symbols that they stand under."""
    return {image.symbol_name(name, probe): value for probe, value in probes.items()}


def stubs(content: bytes) -> tuple[int, int, int]:
    """Of a file: the first byte of a site, and the text that a forked child needs anew, as offset and size (or 0)."""
    offset, size = image.text_of(content)
    fast = image.MACHINES["x86_64"].fast
    return content[offset], offset, size if content.startswith(fast, offset) else 0


def _store(name: str, specs: Sequence[ProbeSpec], nop: str) -> Stored:
    return files.store(
        image.file_name(name, specs, machine=machine(), nop=nop),
        lambda: image.build(name, specs, machine=machine(), nop=nop),
        _check(name, specs, nop),
    )


def _check(name: str, specs: Sequence[ProbeSpec], *nops: str) -> Check:
    names = [image.file_name(name, specs, machine=machine(), nop=nop) for nop in nops]
    return lambda content: any(image.is_whole(content, each) for each in names)
