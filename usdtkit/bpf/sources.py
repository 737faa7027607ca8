"""The C texts beside this file, by name. Used by `program` and `walker`."""

from __future__ import annotations

import os


def text_of(name: str) -> str:
    """The content of a file beside this one. OSError if it is not installed."""
    # Importing pathlib takes long. The encoding of the locale may be another.
    with open(f"{os.path.dirname(__file__)}/{name}", encoding="utf-8") as file:  # noqa: PTH120, PTH123
        return file.read()
