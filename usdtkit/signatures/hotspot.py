"""The JVM, HotSpot. Read through `usdtkit.signatures.known_arguments`. Its strings have a length and no NUL.

Methods, objects and monitors are reported only by a JVM started with -XX:+DTraceMethodProbes, +DTraceAllocProbes and
+DTraceMonitorProbes (older: -XX:+ExtendedDTraceProbes). `thread` is Java's number of it.
"""

_METHOD = (("thread", "u64"), ("class_name", "text"), ("method", "text"), ("signature", "text"))
_POOL = (
    *(("manager", "text"), ("pool", "text")),
    *(("initial", "u64"), ("used", "u64"), ("committed", "u64"), ("maximum", "u64")),
)
_THREAD = (("name", "text"), ("thread", "u64"), ("native_thread", "u64"), ("daemon", "bool"))
_CLASS = (("class_name", "text"), ("loader", "pointer"), ("shared", "bool"))
_MONITOR = (("thread", "u64"), ("monitor", "pointer"), ("class_name", "text"))
_COMPILE = (("compiler", "text"), ("class_name", "text"), ("method", "text"), ("signature", "text"))
_LOADED = (("class_name", "text"), ("method", "text"), ("signature", "text"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "method__entry": _METHOD,
    "method__return": _METHOD,
    "object__alloc": (("thread", "u64"), ("class_name", "text"), ("size", "u64")),
    "gc__begin": (("full", "bool"),),
    "gc__end": (),
    "mem__pool__gc__begin": _POOL,
    "mem__pool__gc__end": _POOL,
    "thread__start": _THREAD,
    "thread__stop": _THREAD,
    "class__loaded": _CLASS,
    "class__unloaded": _CLASS,
    "monitor__contended__enter": _MONITOR,
    "monitor__contended__entered": _MONITOR,
    "monitor__contended__exit": _MONITOR,
    "monitor__wait": (*_MONITOR, ("timeout", "i64")),
    "monitor__waited": _MONITOR,
    "monitor__notify": _MONITOR,
    "monitor__notifyAll": _MONITOR,
    "method__compile__begin": _COMPILE,
    "method__compile__end": (*_COMPILE, ("success", "bool")),
    "compiled__method__load": (*_LOADED, ("code", "pointer"), ("code_size", "u64")),
    "compiled__method__unload": _LOADED,
    "vm__init__begin": (),
    "vm__init__end": (),
    "vm__shutdown": (),
}
