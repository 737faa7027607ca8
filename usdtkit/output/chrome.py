"""Calls as they come → a file in the Chrome trace event format, which speedscope, Perfetto and chrome://tracing open.

Input: entries and returns of functions by process and thread. Output: a JSON array of "B" and "E" events; it is whole
at every moment but for its last bracket, which these readers do without.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from usdtkit.errors import UsdtkitError
from usdtkit.output.text import printable


class ChromeTrace:
    """The file at `path`, written as events come. A context manager."""

    def __init__(self, path: str) -> None:
        self._path = path
        with self._named():
            self._file: TextIO = open(path, "w", encoding="ascii")  # noqa: PTH123, SIM115
        self._before = "["

    def event(self, begins: bool, name: str, time_ns: int, pid: int, tid: int) -> None:
        """An entry (`begins`) or return of the function `name`."""
        one = {"ph": "B" if begins else "E", "name": printable(name), "ts": time_ns / 1e3, "pid": pid, "tid": tid}
        with self._named():
            self._file.write(self._before + json.dumps(one))
        self._before = ",\n"

    def __enter__(self) -> ChromeTrace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._named():
            try:
                self._file.write("[]\n" if self._before == "[" else "]\n")
            finally:
                self._file.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # a write that fails says nothing of its file
            raise UsdtkitError(f"{self._path}: {error.strerror}") from None
