"""What `usdtkit man --all` and `usdtkit schema --all` write: a directory of generated files.

Input: the directory that the user named, and the files. Output: the files, or one error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from usdtkit.errors import UsdtkitError
from usdtkit.privatedirs import write_file


def write_all(directory: str, files: Mapping[str, str]) -> None:
    """Write the texts of `files` by their names, and make the directory if it is not there. UsdtkitError."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_file(f"{directory}/{name}", text.encode())
    except OSError as error:
        raise UsdtkitError(f"{error.filename or directory}: {error.strerror}") from None
