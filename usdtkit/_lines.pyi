"""The compiled module behind `usdtkit.output.lines`. Its source is native/lines.c."""

from typing import Any, final

@final
class Lines:
    """Writes a line for each row: its cells are tuples as `usdtkit.output.lines.Cell`, and `end` is the line's end."""

    def __new__(cls, cells: tuple[tuple[Any, ...], ...], end: str, aligned: bool, /) -> Lines: ...
    def text(self, rows: list[Any], /) -> str: ...
