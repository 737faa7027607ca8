"""Mangled names of C++ and Rust → names in the source; and patterns → the parts that mangled names contain.

Used by `usdtkit.elf.sourcenames` and `usdtkit.output`. LLVM's demangler (pycxxfilt) runs in a child process with little
memory and time. A name of 250 bytes can make it ask for gigabytes, and it ends its process if it does not get them.
"""

from __future__ import annotations

import re
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

# Words of ASCII alone, because both manglings spell others in their own way.
_IDENTIFIER = re.compile(r"(?<!\w)[A-Za-z_][A-Za-z0-9_]*(?!\w)")
_ANONYMOUS = "(anonymous namespace)"
# What is in brackets may be a type, which a mangled name abbreviates.
_IN_BRACKETS = re.compile(r"<[^<>]*>|\{[^{}]*\}|\[[^][]*\]")
# Words that a mangled name abbreviates, or spells in another way.
_NOT_IN_FULL = re.compile(
    "std|string|basic_string|allocator|char_traits|(basic_)?[io]{1,2}stream|anonymous|namespace|operator|new|delete|const|"
    "volatile|unsigned|signed|char|short|int|long|bool|float|double|void|auto|decltype|wchar_t|(lambda|unnamed)[0-9]*|thunk|"
    "virtual|non|covariant|return|clone|to|for|as|dyn|mut|impl|closure|str|[iu](8|16|32|64|128|size)|f32|f64|co_await|"
    "char(8|16|32)_t|__int128"
)
_COPY = re.compile(r"(?: \(\.[\w.]{1,64}\)){1,8}$")
_LANDMARK = re.compile(
    r"(?P<operator>(?<![\w$])operator(?![\w$])(?: ?(?:\(\)|\[\]|<=>|->\*?|<<=?|>>=?|[<>]=?))?)|(?<!-)>|[ <(\[{)\]}]"
)
_BRACKET = re.compile(r"<|(?<!-)>")
_OPERATOR = re.compile(r"(?<![\w$])operator(?![\w$])")
_QUALIFIERS = re.compile(r"(?: (?:const|volatile|noexcept|&&?))*")
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
    """Return the parts of a name, or a glob for demangled names, that mangled names of its matches contain.

    There are none for a regex.
    """
    if not isinstance(pattern, str):
        return []
    text, count = pattern.replace(_ANONYMOUS, ""), 1
    while count:
        text, count = _IN_BRACKETS.subn("*", text)
    return [word for word in _IDENTIFIER.findall(text.partition("(")[0]) if not _NOT_IN_FULL.fullmatch(word)]


def without_copy(name: str) -> str:
    """Return a demangled name without the mark of a copy that a compiler has made: `f(int)` of `f(int) (.isra.0)`."""
    return _COPY.sub("", name)


def without_parameters(name: str) -> str:
    """Return a demangled name without its parameters and return type: `ns::f<int>` of `void ns::f<int>(int) const`.

    A function inside of another one keeps the parameters of that one: `f(int)::'lambda'(long)::operator()`.
    """
    depth, start, position = 0, 0, 0
    has_spaces = name.startswith(("virtual thunk to ", "non-virtual thunk to ", "covariant return thunk to "))
    while landmark := _LANDMARK.search(name, position):
        at, position = landmark.start(), landmark.end()
        kind = landmark[0]
        if landmark["operator"] is not None:
            has_spaces = has_spaces or depth == 0  # `operator new` and `operator unsigned int`
        elif kind == "(" and depth == 0:
            if name.startswith(_ANONYMOUS, at):
                position = at + len(_ANONYMOUS)
            elif at and name[at - 1] == " " and name[at + 1 : at + 2] in ("*", "&"):
                start = at + 2  # it returns a pointer to a function: void (*f<int>(int))(char)
            else:
                position = _after_parentheses(name, at)
                if not name.startswith("::", position) and name[start:at] != "decltype":
                    return name[start:at]
        elif kind == " ":
            start = start if depth or has_spaces else position
        else:
            depth += 1 if kind in "<([{" else -1
    return name[start:]


def without_arguments(name: str) -> str:
    """Return a name without the arguments of templates and generics: `ns::A::f` of `ns::A<int>::f<long>`."""
    if "<" not in name or ("operator" in name and _OPERATOR.search(name)):
        return name
    kept: list[str] = []
    is_argument: list[bool] = []  # of each bracket that is open; all that are in arguments are arguments as well
    position = 0
    for bracket in _BRACKET.finditer(name):
        within = bool(is_argument) and is_argument[-1]
        at = bracket.start()
        if not within:
            kept.append(name[position:at])
        position = at + 1
        if bracket[0] == "<":
            before = name[max(at - 3, 0) : at].removesuffix("::")[-1:]
            begins = not within and (before.isalnum() or before == "_") and not name.startswith("impl ", position)
            if begins:
                kept[-1] = kept[-1].removesuffix("::")
            is_argument.append(within or begins)
            within = is_argument[-1]
        elif is_argument:
            is_argument.pop()
        if not within:
            kept.append(bracket[0])
    return name if is_argument else "".join(kept) + name[position:]


def _after_parentheses(name: str, at: int) -> int:
    """Where the parameters that begin at `at` end, with what is said about the function behind them."""
    depth, position = 0, at
    while position < len(name):
        depth += (name[position] == "(") - (name[position] == ")")
        position += 1
        if depth == 0:
            qualifiers = _QUALIFIERS.match(name, position)
            return qualifiers.end() if qualifiers else position
    return position


def _run(names: list[str], at_once: int) -> tuple[list[str], bool]:
    """The results of one child for the names that it has reached, and whether it ran out of time."""
    import signal  # lazy, both: they take 4 ms, and most traces have no name to demangle
    import subprocess

    package = find_spec("pycxxfilt")
    if package is None or package.origin is None or not sys.executable:
        raise UnsupportedError("demangled names need the package pycxxfilt", hint="pip install pycxxfilt")
    limits = _MEMORY, 1 + len(names) // _NAMES_A_SECOND, _LONGEST_RESULT, at_once
    packages = package.origin.rpartition("/")[0].rpartition("/")[0]
    command = [sys.executable, "-I", "-S", "-X", "utf8", _CHILD, *map(str, limits), packages]
    lines = "".join(f"{name}\n" for name in names)
    done = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", errors="replace")
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
    if (known := _RUST_CHARACTERS.get(escape[1])) is not None:
        return known
    code = int(escape[1][1:], 16)
    return "?" if 0xD800 <= code < 0xE000 or code >= 0x110000 else chr(code)
