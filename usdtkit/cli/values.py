"""Words of a command line → values, for argparse: numbers of processes and users, amounts, commands.

Input: one word. Output: the value, or argparse.ArgumentTypeError with the reason why the word is not one.
"""

from __future__ import annotations

import argparse


def tid(text: str) -> int:
    """For argparse: a thread's number."""
    return _whole(text, "a thread ID")


def process(text: str) -> int | str:
    """For argparse: a process's number, or the name of a program, which `usdtkit.targets.processes_of` looks for."""
    if text.isdecimal():
        return _whole(text, "a process ID")
    if not text or text.startswith("-"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a process ID or the name of a program")
    return text


def processes(text: str) -> list[int | str]:
    """For argparse: numbers and names of processes, with commas between them."""
    return [process(word) for word in text.split(",")]


def user(text: str) -> int:
    """For argparse: a user's number, by number or name."""
    if text.isdecimal() and int(text) < 2**32:
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"there is no user {text!r}") from None


def count(text: str) -> int:
    """For argparse: a number of things, 0 included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of events")
    return int(text)


def positive(text: str) -> int:
    """For argparse: a number of things, at least 1."""
    return _whole(text, "a number above 0")


def pages(text: str) -> int:
    """For argparse: a number of pages of memory, as bytes."""
    return positive(text) * 4096


def steps(text: str) -> tuple[int, int, int]:
    """For argparse: the bounds of a linear histogram, and its step."""
    try:
        low, high, step = (int(part, 0) for part in text.split(":"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW:HIGH:STEP, such as 0:4096:512") from None
    return low, high, step


def words(text: str) -> list[str]:
    """For argparse: a command as a shell would split it."""
    import shlex

    try:
        command = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not command:
        raise argparse.ArgumentTypeError("an empty command cannot be traced")
    return command


def seconds(text: str) -> float:
    """For argparse: a positive number of seconds."""
    return _amount(text, "seconds", zero=False)


def milliseconds(text: str) -> float:
    """For argparse: a threshold, 0 or more."""
    return _amount(text, "milliseconds", zero=True)


def days(text: str) -> float:
    """For argparse: an age, 0 or more."""
    return _amount(text, "days", zero=True)


def _whole(text: str, what: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return int(text)


def _amount(text: str, unit: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9 or (value == 0 and not zero):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}")
    return value
