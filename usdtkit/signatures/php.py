"""PHP (--enable-dtrace; its probes fire only where USE_ZEND_DTRACE=1 was set). Read through `usdtkit.signatures`."""

_FUNCTION = (("function", "str"), ("file", "str"), ("line", "i32"), ("class_name", "str"), ("scope", "str"))
_REQUEST = (("file", "str"), ("uri", "str"), ("method", "str"))
_EXECUTE = (("file", "str"), ("line", "i32"))
_COMPILE = (("file", "str"), ("translated", "str"))
_EXCEPTION = (("class_name", "str"),)

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "function__entry": _FUNCTION,
    "function__return": _FUNCTION,
    "execute__entry": _EXECUTE,
    "execute__return": _EXECUTE,
    "compile__file__entry": _COMPILE,
    "compile__file__return": _COMPILE,
    "exception__thrown": _EXCEPTION,
    "exception__caught": _EXCEPTION,
    "error": (("message", "str"), ("file", "str"), ("line", "i32")),
    "request__startup": _REQUEST,
    "request__shutdown": _REQUEST,
}
