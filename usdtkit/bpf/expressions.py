"""What a user asks for, as objects: values at a probe, and conditions on them.

Users build them through `usdtkit.trace`, and so do the parsers of the mini-languages; `render` turns them into C. They
know nothing of a probe: names stay names until a program is made, and no text of a user ever becomes C.

    arg("order_id") > 100            an argument by name, or by number from 1
    cstr(arg(1), 256) == "ada"       a NUL-terminated string behind a pointer, at most 256 bytes of it
    latency > ms(10)                 in a pair: nanoseconds between start and end
    retval.cast("i32") < 0           a function's return value, as a C int
    deref(arg("pamh"), 48, "u32")    memory behind a pointer
    arg("query").matches("SELECT *") a glob; also contains, startswith, endswith
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from usdtkit.bpf.scanner import EXACT, Scanner
from usdtkit.errors import UsageError
from usdtkit.records import dataclass

IntegerType = Literal["u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"]
NumberType = Literal[IntegerType, "f32", "f64"]
INTEGER_TYPES = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64")
MAX_STRING = 4096
# A pattern consists of bytes and of these two, which stand for ? and *.
ANY_BYTE, ANY_BYTES = 256, 257
MAX_PATTERN = 63
MAX_GENERATIONS = 8

# Names that mean something at every probe; "latency" only in pairs, "retval" only at returns.
BUILTINS = (
    *("pid", "tid", "uid", "gid", "cgroup", "cpu", "time", "comm", "latency", "retval", "ustack", "pycaller"),
    *("ip", "caller", "probe", "goid"),
)


def _operator(symbol: str) -> Callable[[Expression, Operand], Binary]:
    return lambda self, other: Binary(symbol, self, lift(other))


def _reflected(symbol: str) -> Callable[[Expression, int], Binary]:
    return lambda self, other: Binary(symbol, lift(other), self)


class Expression:
    """A value that is computed in the kernel when a probe is hit. Operators and comparisons make new expressions.

    Integers have 64 bits, and results wrap around. A result is signed where an operand is. Comparisons are by value,
    also between signed and unsigned operands. `//` rounds down and `%` has the divisor's sign, as in Python; `x // 0`
    is 0 and `x % 0` is x. Shifts count modulo 64. `~` negates a condition, and inverts the bits of a number.
    """

    __add__, __radd__ = _operator("+"), _reflected("+")
    __sub__, __rsub__ = _operator("-"), _reflected("-")
    __mul__, __rmul__ = _operator("*"), _reflected("*")
    __floordiv__, __rfloordiv__ = _operator("/"), _reflected("/")
    __mod__, __rmod__ = _operator("%"), _reflected("%")
    __lshift__, __rlshift__ = _operator("<<"), _reflected("<<")
    __rshift__, __rrshift__ = _operator(">>"), _reflected(">>")
    __and__, __rand__ = _operator("&"), _reflected("&")
    __or__, __ror__ = _operator("|"), _reflected("|")
    __xor__, __rxor__ = _operator("^"), _reflected("^")
    __lt__ = _operator("<")
    __le__ = _operator("<=")
    __gt__ = _operator(">")
    __ge__ = _operator(">=")

    def __invert__(self) -> Not:
        return Not(self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]  # an expression, as in query languages
        if isinstance(other, (str, bytes)):
            return TextTest(self, _encode(other), whole=True)
        return Binary("==", self, lift(other))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Not(self == other) if isinstance(other, (str, bytes)) else Binary("!=", self, lift(other))

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise UsageError(
            "an expression has no truth value before the probe is hit",
            hint="combine conditions with &, | and ~, each in parentheses, not with and, or, not",
        )

    def startswith(self, prefix: str | bytes) -> TextTest:
        """Whether a string begins with `prefix`."""
        return TextTest(self, _encode(prefix), whole=False)

    def endswith(self, suffix: str | bytes) -> Glob:
        """Whether a string ends with `suffix`. It is false for a string that is longer than what is read of it."""
        return Glob(self, (ANY_BYTES, *_pattern(suffix)))

    def contains(self, part: str | bytes) -> Glob:
        """Whether `part` occurs in what is read of a string."""
        return Glob(self, (ANY_BYTES, *_pattern(part), ANY_BYTES))

    def matches(self, pattern: str | bytes) -> Glob:
        """Whether a whole string matches a glob: `*` stands for any bytes, `?` for one. Case matters.

        A string that is longer than what is read of it matches only patterns that end in `*`.
        """
        special = {ord("?"): ANY_BYTE, ord("*"): ANY_BYTES}
        return Glob(self, tuple(special.get(byte, byte) for byte in _pattern(pattern)))

    def cast(self, type: IntegerType) -> Cast:
        """The value as a C integer of that width and sign: a return value of type int is `retval.cast("i32")`.

        A string or bytes give their address.
        """
        if type not in INTEGER_TYPES:
            raise UsageError(f"cannot cast to {type!r}", hint=f"one of {', '.join(INTEGER_TYPES)}")
        return Cast(self, type)


Operand = Expression | int


@dataclass(eq=False, repr=False)
class Constant(Expression):
    """An integer constant. It becomes a parameter of the compiled program, not part of its text."""

    value: int


@dataclass(eq=False, repr=False)
class Name(Expression):
    """A value by its name: of what a pair keeps, an argument, or a builtin, the first that exists."""

    name: str


@dataclass(eq=False, repr=False)
class Arg(Expression):
    """An argument by name, or by its number from 1."""

    which: int | str


@dataclass(eq=False, repr=False)
class Cast(Expression):
    value: Expression
    type: str


@dataclass(eq=False, repr=False)
class Binary(Expression):
    operator: str
    left: Expression
    right: Expression


@dataclass(eq=False, repr=False)
class Not(Expression):
    value: Expression


@dataclass(eq=False, repr=False)
class Register(Expression):
    """A register of the processor, as struct pt_regs calls it ("dx"), for probes in the middle of a function."""

    name: str


@dataclass(eq=False, repr=False)
class NumberInMemory(Expression):
    """A number in the memory of the process."""

    address: Expression
    offset: int
    type: str


@dataclass(eq=False, repr=False)
class Text(Expression):
    """The NUL-terminated string that a pointer points to, at most `size` bytes of it."""

    pointer: Expression
    size: int


@dataclass(eq=False, repr=False)
class Buffer(Expression):
    """`length` bytes that a pointer points to, at most `size` of them; with `text`, a string."""

    pointer: Expression
    length: Expression
    size: int
    text: bool = False


@dataclass(eq=False, repr=False)
class Interned(Expression):
    """A text by the number under which the program has sent it; `scanner` says which texts have the same number."""

    text: Expression
    scanner: Scanner


@dataclass(eq=False, repr=False)
class Ancestor(Expression):
    """The process from which the one that runs was forked, so many generations ago."""

    generations: int


@dataclass(eq=False, repr=False)
class MapValue(Expression):
    """A value of an entry of the session's map `number`, or 0 where there is none. Of the kind bool, whether there
    is."""

    number: int
    index: int
    kind: Literal["u64", "i64", "stack", "bool"]
    key: Expression


@dataclass(eq=False, repr=False)
class ThreadValue(Expression):
    """A value that the session keeps of the thread, one of its `ThreadValues` `number`: 0 where nothing was assigned,
    and a text is empty. Of the kind bool, whether there is an entry of the thread."""

    number: int
    index: int
    kind: Literal["u64", "i64", "str", "bool"]
    size: int = 8


@dataclass(eq=False, repr=False)
class Chosen(Expression):
    """Whether the hit is one of those that the hook's `chosen` lets count."""


@dataclass(eq=False, repr=False)
class TextTest(Expression):
    """Whether a string is `literal`, or without `whole`, whether it begins with it."""

    text: Expression
    literal: bytes
    whole: bool


@dataclass(eq=False, repr=False)
class Glob(Expression):
    """Whether a string matches a pattern of bytes, ANY_BYTE and ANY_BYTES."""

    text: Expression
    pattern: tuple[int, ...]


pid = Name("pid")
"""The number of the process that hit the probe, as the first PID namespace counts."""
tid = Name("tid")
"""The number of the thread that hit the probe, as the first PID namespace counts."""
uid = Name("uid")
"""The number of the thread's user."""
gid = Name("gid")
"""The number of the thread's group."""
cpu = Name("cpu")
"""The number of the processor on which the thread runs."""
comm = Name("comm")
"""The name of the thread, a string of at most 15 bytes."""
latency = Name("latency")
"""At the end of a pair, the nanoseconds since its start."""
retval = Name("retval")
"""At the return of a function, the 64 bits that it returns. A C int is `retval.cast("i32")`."""
now = Name("time")
"""When the probe was hit: CLOCK_MONOTONIC in nanoseconds."""
cgroup = Name("cgroup")
"""The number of the thread's cgroup, which is the inode of its directory in version 2 of the file system."""
goid = Name("goid")
"""The number of the goroutine that runs, in functions of Go programs: the one that Go's own tracebacks print."""
ip = Name("ip")
"""The address of the probe; at a return probe, the address that the function returns to. `Session.symbol` names it."""
caller = Name("caller")
"""At the entry or the return of a function, the address that it was called from. `Session.symbol` names it."""
ustack = Name("ustack")
"""The calls that led to the probe, as a field or a key. It arrives as a `Stack`, or None if none could be read."""
pycaller = Name("pycaller")
"""The function of Python that the probe was called from, as a field or a key: a `PythonCaller`, or None without one.

It is the innermost function of the program itself. If there is none, it is one of an installed package, or else of the
standard library.
"""
probe = Name("probe")
"""The name of the probe or function that was hit, as a key for a source that has several. Events have it anyway."""


def arg(which: int | str) -> Arg:
    """An argument of the probe or function: by name where the name is known, or by number from 1.

    A value that `Source.derive` has named goes by its name too.
    """
    if isinstance(which, int) and which < 1:
        raise UsageError(f"arg({which}): arguments are numbered from 1")
    return Arg(which)


def cstr(pointer: Expression | str | int, size: int = 256, *, length: Operand | None = None) -> Text | Buffer:
    """The string that a pointer points to, at most `size` bytes of it.

    `pointer` is an expression, or an argument's name or number. The string ends at a NUL or, with `length`, after so
    many bytes.
    """
    if length is None:
        return Text(_pointer(pointer), _check_size(size))
    return Buffer(_pointer(pointer), lift(length), _check_size(size), text=True)


def buffer(pointer: Expression | str | int, length: Operand, size: int = 256) -> Buffer:
    """`length` bytes that a pointer points to, at most `size` (a constant) of them. They arrive as bytes."""
    return Buffer(_pointer(pointer), lift(length), _check_size(size))


def ancestor(generations: int) -> Ancestor:
    """The number of the process from which the one that hit the probe was forked: 1 is its parent, 2 the parent's.

    It is known, also of processes that have ended, where the fork was during the trace; else it is 0, as on kernels
    without BTF.
    """
    if not 1 <= generations <= MAX_GENERATIONS:
        raise UsageError(f"ancestors of {generations} generations ago", hint=f"from 1 to {MAX_GENERATIONS}")
    return Ancestor(generations)


def interned(text: Expression | str, alike: Scanner = EXACT) -> Interned:
    """A text, or bytes, as a key of tables, however long it is: what the kernel keeps is a number of 64 bits.

    The text arrives once, when the program first meets it. `text` is an expression such as `cstr(…)`, or the name of
    what a pair keeps. Texts that the scanner `alike` does not tell apart are one key, which shows the first of them.
    The key is None where the text cannot be read, and OTHER_TEXTS for texts that came too fast to be kept.
    """
    return Interned(Name(text) if isinstance(text, str) else text, alike)


def deref(address: Expression | str | int, offset: int = 0, type: NumberType = "u64") -> NumberInMemory:
    """The number at `address + offset` in the memory of the process. Chains of pointers are nested calls.

    An f32 or f64 can be a field or a key, but programs in the kernel cannot calculate with it.
    """
    if type not in (*INTEGER_TYPES, "f32", "f64"):
        raise UsageError(f"cannot read a {type!r} from memory", hint=f"one of {', '.join(INTEGER_TYPES)}, f32, f64")
    return NumberInMemory(_pointer(address), offset, type)


def us(value: float) -> int:
    """Microseconds as nanoseconds, to compare with `latency`."""
    return round(value * 1_000)


def ms(value: float) -> int:
    """Milliseconds as nanoseconds, to compare with `latency`."""
    return round(value * 1_000_000)


def lift(value: object) -> Expression:
    """An integer as an expression, or the expression itself. UsageError for anything else."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return Constant(int(value))
    raise UsageError(f"{value!r} cannot be used in an expression", hint="use a 64-bit integer or an expression")


def _pointer(value: Expression | str | int) -> Expression:
    return value if isinstance(value, Expression) else arg(value)


def _check_size(size: int) -> int:
    if not 1 <= size <= MAX_STRING:
        raise UsageError(f"a string of {size} bytes cannot be read", hint=f"from 1 to {MAX_STRING}")
    return size


def _pattern(text: str | bytes) -> bytes:
    encoded = _encode(text)
    if len(encoded) > MAX_PATTERN:
        raise UsageError(
            f"a pattern of {len(encoded)} bytes is too long",
            hint=f"at most {MAX_PATTERN}; == and startswith take longer strings",
        )
    return encoded


def _encode(text: str | bytes) -> bytes:
    try:
        encoded = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} cannot be compared with: {error.reason}") from None
    if len(encoded) > 255:
        raise UsageError(f"a string of {len(encoded)} bytes is too long to compare with", hint="at most 255 bytes")
    return encoded
