"""Names of C types → what the tracer reads: an integer of some width and sign, a string, or a pointer.

Input: words or a `CType`. Output: types of `usdtkit.bpf`. `parser` asks here to tell a cast from a parenthesis, and
`names`, `lower` and `formats` ask for the type of a value.
"""

from __future__ import annotations

from usdtkit.language.nodes import CType

QUALIFIERS = frozenset(("const", "volatile", "restrict", "__user", "__restrict", "register", "static"))
# After these words a type may go on with another of them.
_WORDS = frozenset(("char", "short", "int", "long", "signed", "unsigned", "float", "double", "void", "bool", "_Bool"))
TAGS = frozenset(("struct", "union", "enum"))

_INTEGERS = {
    "bool": "u8",
    "_Bool": "u8",
    "size_t": "u64",
    "ssize_t": "i64",
    "off_t": "i64",
    "off64_t": "i64",
    "loff_t": "i64",
    "time_t": "i64",
    "pid_t": "i32",
    "uid_t": "u32",
    "gid_t": "u32",
    "mode_t": "u32",
    "umode_t": "u16",
    "socklen_t": "u32",
    "clockid_t": "i32",
    "uintptr_t": "u64",
    "intptr_t": "i64",
    "ptrdiff_t": "i64",
    "pthread_t": "u64",
}
for _bits in ("8", "16", "32", "64"):
    _INTEGERS |= {f"{prefix}{_bits}": f"u{_bits}" for prefix in ("u", "__u")}
    _INTEGERS |= {f"{prefix}{_bits}": f"i{_bits}" for prefix in ("s", "i", "__s")}
    _INTEGERS |= {f"uint{_bits}_t": f"u{_bits}", f"int{_bits}_t": f"i{_bits}"}

STRING = CType("char", 1)
POINTER = CType("void", 1)
U64, I64, I32 = CType("u64"), CType("i64"), CType("i32")
PYFRAME = CType("pyframe")
"""The type of `pycaller`, which is no type of C."""


def is_type_word(word: str) -> bool:
    """Whether a name at the beginning of something shows that it is a type."""
    return word in _WORDS or word in _INTEGERS or word in QUALIFIERS or word in TAGS


def may_continue(word: str) -> bool:
    """Whether a name after the first word of a type can belong to that type."""
    return word in _WORDS or word in QUALIFIERS


def integer_type(type: CType) -> str | None:
    """One of u8 … i64 for an integer or a pointer; None for any other type, and for an unknown one."""
    if type.pointers:
        return "u64"
    if type.name in _INTEGERS:
        return _INTEGERS[type.name]
    words = type.name.split()
    if type.name.startswith("enum "):
        return "i32"
    if not words or not set(words) <= {"char", "short", "int", "long", "signed", "unsigned"}:
        return None
    bits = 8 if "char" in words else 16 if "short" in words else 64 if "long" in words else 32
    return f"{'u' if 'unsigned' in words else 'i'}{bits}"


def is_text(type: CType) -> bool:
    """Whether a type is a pointer to characters."""
    return type.pointers == 1 and type.name in ("char", "signed char", "unsigned char")


def is_float(type: CType) -> bool:
    """Whether a type is float, double or long double."""
    return not type.pointers and type.name in ("float", "double", "long double")
