"""CPython's own provider (builds with --with-dtrace), and what `usdtkit run` adds to it.

Read through `usdtkit.signatures.known_arguments`, and by `usdtkit.instrument.python`, which declares them.
"""

import re

# Globs of the names of files: of the interpreter's program, and of the library that it may be in.
PROGRAMS = ("python", "python[23]*")
LIBRARIES = ("libpython[23]*",)

_STANDARD_LIBRARY = re.compile(r"/lib(64)?/python3\.\d+t?/|/python3\d+t?\.zip/|^<frozen ")

_FRAME = (("file", "str"), ("function", "str"), ("line", "i32"))
_EXCEPTION = (("type", "str"), *_FRAME)
_CALL = (*_FRAME, ("owner", "str"))
_THREAD = (("name", "str"), ("tid", "u32"))
_OBJECT = (("type", "str"), ("address", "u64"), ("size", "u64"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "function__entry": _FRAME,
    "function__return": _FRAME,
    "line": _FRAME,
    "gc__start": (("generation", "i32"),),
    "gc__done": (("collected", "i64"),),
    "import__find__load__start": (("module", "str"),),
    "import__find__load__done": (("module", "str"), ("found", "i32")),
    "audit": (("event", "str"), ("arguments", "pointer")),
    # Not CPython's.
    "exception__raise": _EXCEPTION,
    "exception__unwind": _EXCEPTION,
    "exception__handled": _EXCEPTION,
    "generator__resume": _FRAME,
    "generator__yield": _FRAME,
    "coroutine__resume": _FRAME,
    "coroutine__yield": _FRAME,
    "cfunction__call": _CALL,
    "cfunction__return": _CALL,
    "cfunction__raise": _CALL,
    "thread__start": _THREAD,
    "thread__stop": _THREAD,
    "object__new": _OBJECT,
    "object__delete": _OBJECT,
}


def distance_of_code(file: str) -> int:
    """How far code is from the program that runs it, by the path of its file: 0 for the program's own, 1 for that of an
    installed package, 2 for that of the standard library."""
    if "/site-packages/" in file or "/dist-packages/" in file:
        return 1
    return 2 if _STANDARD_LIBRARY.search(file) else 0
