"""CPython's own provider (builds with --with-dtrace), and what `usdtkit run` adds to it.

Read through `usdtkit.signatures.known_arguments`, and by `usdtkit.instrument.python`, which declares them.
"""

# Globs of the names of files: of the interpreter's program, and of the library that it may be in.
PROGRAMS = ("python", "python[23]*")
LIBRARIES = ("libpython[23]*",)

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
