"""What a command tells the person at the terminal, apart from its data: lines on standard error.

Input: text, which may quote names of files and processes. Output: a line, which `usdtkit.cli` makes printable.
"""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)
