"""Compiled programs in one file, for machines without a compiler: entries of the cache ↔ a zip archive.

`usdtkit bundle` writes a bundle, and `usdtkit cache --add` puts its entries into the cache. The bundle at SHIPPED is
made when a wheel is built; `compiler` searches it after the cache. The contents of a bundle run in the kernel, so a
bundle that another user could have changed is refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from usdtkit import privatedirs
from usdtkit.cache import PROGRAMS
from usdtkit.errors import NotFoundError, PrivilegeError, UnsupportedError, UsdtkitError
from usdtkit.records import dataclass
from usdtkit.version import VERSION

SHIPPED = Path(__file__).parent / "shipped.bundle"
MANIFEST = "manifest.json"
SCHEMA = "usdtkit.bundle/1"
MOST_ENTRIES = 10_000
LARGEST_ENTRY = 4 << 20
_SAME_TIME = (1980, 1, 1, 0, 0, 0)  # so that equal programs make equal files
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Bundle:
    """The contents of a file: entries by key, and by key the command lines that load them."""

    machine: str
    entries: Mapping[str, bytes]
    used_by: Mapping[str, Sequence[str]]


def write(path: Path, bundle: Bundle) -> None:
    """Write a bundle. Readers see all of it or nothing. OSError where it cannot be written."""
    manifest = {"schema": SCHEMA, "version": VERSION, "machine": bundle.machine, "used_by": bundle.used_by}
    contents = {MANIFEST: json.dumps(manifest, sort_keys=True).encode(), **dict(sorted(bundle.entries.items()))}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _SAME_TIME), content, zipfile.ZIP_DEFLATED)
    privatedirs.write_file(str(path), packed.getvalue())


def read(path: Path) -> Bundle:
    """Read a bundle that was made for this machine and this version.

    Raises NotFoundError, PrivilegeError where another user could have written it, UnsupportedError where it was made
    for another machine or version, and UsdtkitError where it is damaged or no bundle.
    """
    try:
        # The user who called sudo is trusted like root.
        caller = int(os.environ.get("SUDO_UID", os.geteuid()))
        with (
            privatedirs.open_file(str(path), trusted=[caller]) as descriptor,
            open(descriptor, "rb", closefd=False) as file,
            zipfile.ZipFile(file) as archive,
        ):
            sizes = [info.file_size for info in archive.infolist()]
            if len(sizes) > MOST_ENTRIES or sum(sizes) > PROGRAMS.limit:
                raise ValueError("too large")
            manifest = json.loads(_content(archive, MANIFEST))
            used_by = manifest["used_by"]
            if manifest["schema"] != SCHEMA or not all(_is_key(key) for key in used_by):
                raise ValueError("not of this kind")
            made_for = (str(manifest["version"]), str(manifest["machine"]))
            lines = {key: [str(line) for line in lines] for key, lines in used_by.items()}
            entries = {key: _content(archive, key) for key in lines}
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except privatedirs.UntrustedError as error:
        raise PrivilegeError(
            f"{path} could have been written by another user, and its programs run in the kernel: {error.message}",
            hint="own it and the directories above it, and allow nobody else to write: chown, chmod go-w",
        ) from None
    except _DAMAGED as error:
        raise UsdtkitError(
            f"{path} is not a bundle of programs, or is damaged: {error}", hint="make one with usdtkit bundle"
        ) from None
    except OSError as error:
        raise UsdtkitError(f"{path}: {error.strerror}") from None
    if made_for != (VERSION, os.uname().machine):
        raise UnsupportedError(
            f"{path} was made by usdtkit {made_for[0]} for {made_for[1]}, this is {VERSION} on {os.uname().machine}",
            hint="make it with the same version, on a machine of the same architecture",
        )
    return Bundle(made_for[1], entries, lines)


def shipped(key: str) -> bytes | None:
    """The entry that came with this installation, or None."""
    try:
        with zipfile.ZipFile(SHIPPED) as archive:
            return _content(archive, key)
    except (OSError, *_DAMAGED):
        return None


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST_ENTRY:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _is_key(name: object) -> bool:
    return isinstance(name, str) and len(name) == 64 and set(name) <= set("0123456789abcdef")
