"""Messages for the person at the terminal, which are separate from the data: lines on standard error.

Input: text, which may quote names of files and processes. Output: a line, which `usdtkit.cli` makes printable.
"""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Write a line to standard error."""
    print(text, file=sys.stderr, flush=True)
