"""The error for what the translator does not know. It is at the bottom, because all modules here raise it."""

from __future__ import annotations


class UntranslatableError(Exception):
    """A text has something that only a C compiler can translate; the message says what."""
