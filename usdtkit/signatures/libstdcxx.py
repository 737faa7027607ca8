"""GNU's C++ library: exceptions. Read through `usdtkit.signatures.known_arguments`.

`type` points to a std::type_info, whose second word points to the mangled name of the exception's type.
"""

_EXCEPTION = (("object", "pointer"), ("type", "pointer"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "throw": _EXCEPTION,
    "catch": _EXCEPTION,
    "rethrow": _EXCEPTION,
}
