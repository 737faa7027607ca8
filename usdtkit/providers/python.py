"""CPython's own provider (builds with --with-dtrace). Read through `usdtkit.providers.known_arguments`."""

_FRAME = (("file", "str"), ("function", "str"), ("line", "i32"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "function__entry": _FRAME,
    "function__return": _FRAME,
    "line": _FRAME,
    "gc__start": (("generation", "i32"),),
    "gc__done": (("collected", "i64"),),
    "import__find__load__start": (("module", "str"),),
    "import__find__load__done": (("module", "str"), ("found", "i32")),
    "audit": (("event", "str"), ("arguments", "pointer")),
}
