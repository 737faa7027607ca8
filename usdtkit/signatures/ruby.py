"""Ruby's interpreter (--enable-dtrace). Read through `usdtkit.signatures.known_arguments`."""

_METHOD = (("class_name", "str"), ("method", "str"), ("file", "str"), ("line", "i32"))
_OBJECT = (("class_name", "str"), ("file", "str"), ("line", "i32"))
_SIZED = (("length", "u64"), ("file", "str"), ("line", "i32"))
_FEATURE = (("feature", "str"), ("file", "str"), ("line", "i32"))
_SOURCE = (("file", "str"), ("line", "i32"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "method__entry": _METHOD,
    "method__return": _METHOD,
    "cmethod__entry": _METHOD,
    "cmethod__return": _METHOD,
    "object__create": _OBJECT,
    "raise": _OBJECT,
    "string__create": _SIZED,
    "array__create": _SIZED,
    "hash__create": _SIZED,
    "symbol__create": (("symbol", "str"), ("file", "str"), ("line", "i32")),
    "require__entry": _FEATURE,
    "require__return": _FEATURE,
    "find__require__entry": _FEATURE,
    "find__require__return": _FEATURE,
    "load__entry": _FEATURE,
    "load__return": _FEATURE,
    "parse__begin": _SOURCE,
    "parse__end": _SOURCE,
    "gc__mark__begin": (),
    "gc__mark__end": (),
    "gc__sweep__begin": (),
    "gc__sweep__end": (),
}
