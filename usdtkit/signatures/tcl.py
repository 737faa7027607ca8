"""Tcl (--enable-dtrace). Read through `usdtkit.signatures.known_arguments`. `objects` points to the arguments."""

_ENTRY = (("name", "str"), ("count", "i32"), ("objects", "pointer"))
_RETURN = (("name", "str"), ("code", "i32"))
_RESULT = (("name", "str"), ("code", "i32"), ("result", "str"), ("object", "pointer"))
_ARGS = (("name", "str"), *((f"argument{n}", "str") for n in range(1, 10)))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "proc__entry": _ENTRY,
    "proc__return": _RETURN,
    "proc__result": _RESULT,
    "proc__args": _ARGS,
    "cmd__entry": _ENTRY,
    "cmd__return": _RETURN,
    "cmd__result": _RESULT,
    "cmd__args": _ARGS,
    "obj__create": (("object", "pointer"),),
    "obj__free": (("object", "pointer"),),
}
