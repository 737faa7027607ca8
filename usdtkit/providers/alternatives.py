"""Functions that may be found under one of several names: tries one name after the other.

A library's functions may be in the program that uses it, or in another library since some version. Used by the other
modules of `usdtkit.providers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from usdtkit.errors import NotFoundError

Made = TypeVar("Made")


def first_found(names: Sequence[str], make: Callable[[str], Made]) -> Made:
    """Call `make` with one name after the other until it finds what it needs, and return its result.

    If it raises NotFoundError for every name, the error for the first name is raised.
    """
    errors = []
    for name in names:
        try:
            return make(name)
        except NotFoundError as error:
            errors.append(error)
    raise errors[0]
