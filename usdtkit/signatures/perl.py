"""Perl (-Dusedtrace). Read through `usdtkit.signatures.known_arguments`."""

_SUB = (("sub", "str"), ("file", "str"), ("line", "i32"), ("package", "str"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "sub__entry": _SUB,
    "sub__return": _SUB,
    "phase__change": (("phase", "str"), ("before", "str")),
    "loading__file": (("file", "str"),),
    "loaded__file": (("file", "str"),),
    "op__entry": (("op", "str"),),
}
