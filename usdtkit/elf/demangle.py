"""Mangled names of C++ and Rust → names in the source; and patterns → the parts that mangled names contain.

Used by `usdtkit.elf.matching` and `usdtkit.output`. LLVM's demangler (pycxxfilt) runs in a child process with little
memory and time. A name of 250 bytes can make it ask for gigabytes, and it ends its process if it does not get them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from usdtkit.errors import UnsupportedError

_LONGEST_NAME, _LONGEST_RESULT = 4096, 16384
_NAME = re.compile(r"_[ZR][\w.$]+", re.ASCII)
_MEMORY = 64 << 20
_NAMES_A_SECOND = 50_000  # a tenth of what it achieves
_MOST_STARTS = 4

_CHILD = __file__.rpartition("/")[0] + "/_demangle_child.py"

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ANONYMOUS = "(anonymous namespace)"
# Words that a mangled name abbreviates, or spells in another way.
_NOT_IN_FULL = re.compile(
    "std|string|basic_string|allocator|char_traits|(basic_)?[io]{1,2}stream|anonymous|namespace|operator|new|delete|const|"
    "volatile|unsigned|signed|char|short|int|long|bool|float|double|void|auto|decltype|wchar_t|lambda|unnamed|thunk|"
    "virtual|non|clone|to|for|as|dyn|mut"
)
_COPY = re.compile(r"(?: \(\.[\w.]{1,64}\)){1,8}$")
_RUST_HASH = re.compile(r"::h[0-9a-f]{16}$")
_RUST_ESCAPE = re.compile(r"\$(SP|BP|RF|LT|GT|LP|RP|C|u[0-9a-f]{1,6})\$")
_RUST_CHARACTERS = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}


def demangle(names: Sequence[str]) -> list[str]:
    """Return the names as they were written, "" for each that is not mangled or cannot be read within the limits.

    UnsupportedError if pycxxfilt is not installed.
    """
    left = [(index, name) for index, name in enumerate(names) if len(name) <= _LONGEST_NAME and _NAME.fullmatch(name)]
    results = [""] * len(names)
    for start in range(_MOST_STARTS):
        if not left:
            break
        at_once = int(start > 0)
        done, out_of_time = _run([name for _, name in left], at_once)
        for (index, _), result in zip(left, done, strict=False):
            results[index] = _rust(result)
        # The child dies if memory runs out. If it wrote every line at once, the name after the last line was the
        # reason, and is left out from then on.
        left = [] if out_of_time else left[len(done) + at_once :]
    return results


def words(pattern: str | re.Pattern[str]) -> list[str]:
    """Return the parts of a glob for demangled names that mangled names of its matches contain; none for a regex."""
    if not isinstance(pattern, str):
        return []
    text = re.sub(r"\[[^]]*\]", "*", pattern.replace(_ANONYMOUS, "")).partition("(")[0]
    return [word for word in _IDENTIFIER.findall(text) if not _NOT_IN_FULL.fullmatch(word)]


def without_copy(name: str) -> str:
    """Return a demangled name without the mark of a copy that a compiler has made: `f(int)` of `f(int) (.isra.0)`."""
    return _COPY.sub("", name)


def without_parameters(name: str) -> str:
    """Return a demangled name without parameters and return type: `ns::f<int>` of `void ns::f<int>(int) const`."""
    depth, start, position = 0, 0, 0
    is_thunk = name.startswith(("virtual thunk to ", "non-virtual thunk to ", "covariant return thunk to "))
    while position < len(name):
        character = name[position]
        if character == "(" and depth == 0 and name.startswith(_ANONYMOUS, position):
            position += len(_ANONYMOUS)
            continue
        if name.startswith("operator", position) and not name[position - 1 : position].isalnum():
            # the name of an operator may contain brackets and spaces
            end = name.find("(", position + 10 if name.startswith("operator()", position) else position)
            return name[start : end if end >= 0 else len(name)]
        if character == "(" and depth == 0:
            return name[start:position]
        if character in "<([{":
            depth += 1
        elif character in ">)]}":
            depth -= name[position - 1 : position] != "-"
        elif character == " " and depth == 0 and not is_thunk:
            start = position + 1
        position += 1
    return name[start:]


def _run(names: list[str], at_once: int) -> tuple[list[str], bool]:
    """The results of one child for the names that it has reached, and whether it ran out of time."""
    package = find_spec("pycxxfilt")
    if package is None or package.origin is None or not sys.executable:
        raise UnsupportedError("demangled names need the package pycxxfilt", hint="pip install pycxxfilt")
    limits = _MEMORY, 1 + len(names) // _NAMES_A_SECOND, _LONGEST_RESULT, at_once
    packages = package.origin.rpartition("/")[0].rpartition("/")[0]
    command = [sys.executable, "-I", "-S", _CHILD, *map(str, limits), packages]
    lines = "".join(f"{name}\n" for name in names)
    done = subprocess.run(command, input=lines, capture_output=True, encoding="ascii", errors="replace")
    if done.returncode > 0:
        problem = done.stderr.strip().rpartition("\n")[2]
        raise UnsupportedError(f"pycxxfilt does not run: {problem}", hint="pip install --force-reinstall pycxxfilt")
    return done.stdout.split("\n")[:-1], done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def _rust(name: str) -> str:
    """The name without the escapes and the hash of Rust's older mangling, which otherwise is C++'s."""
    plain = _COPY.sub("", name)
    if not name or not (hash := _RUST_HASH.search(plain)):
        return name
    copy = name[len(plain) :]
    plain = _RUST_ESCAPE.sub(_rust_character, plain[: hash.start()])
    return re.sub(r"(^|::)_(?=[<&*(\[])", r"\1", plain).replace("..", "::") + copy


def _rust_character(escape: re.Match[str]) -> str:
    code = escape[1]
    return _RUST_CHARACTERS.get(code) or (chr(int(code[1:], 16)) if int(code[1:], 16) < 0x110000 else "?")
