"""The nouns that the other packages exchange, as frozen data.

`elf` makes them from files, `targets` from processes and `trace` from what a user asks for; `bpf`, `kernel`, `output`
and `cli` read them. Nothing here reads a file, except `UserPlace.opened`, which opens one on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from usdtkit.argumenttypes import width_of
from usdtkit.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from usdtkit.files import OpenFile

RETURN_POLICIES = ("auto", "sites", "probes")
"""The ways in which a session may observe the returns of functions (see `usdtkit.trace.returns`)."""

UNWIND_POLICIES = ("auto", "frame-pointers")
"""How a session may find callers: by the tables of call frames that files have, where the kernel can use them, or by
frame pointers alone."""

HookKind = Literal["usdt", "entry", "return", "clock"]
"""What a hit means: a USDT probe, a function's entry, a function's return, or a sample that a clock has taken."""

ReturnsBy = Literal["sites", "probes", "tail"]
"""How a function's return is observed.

- "sites": by probes on the instructions with which the function leaves
- "probes": by the kernel's return probes
- "tail": by a return probe that is set where the function jumps to its last callee
"""


@dataclass(frozen=True, slots=True)
class Operand:
    """Where one argument lies when a probe site is hit: one operand of the note's argument string.

    The value is read as `size` bytes (1, 2, 4, 8) and sign-extended when `signed`. `kind` says where those bytes are:

    - constant: `value`
    - register: the bytes of register `base` from bit `shift` on (8 for %ah, else 0)
    - memory: the bytes at `base + index * scale + value`; with the program counter as base ("rip", "eip", "pc") the
      site's own address is the base
    - unreadable: nowhere; `reason` says why. The operand stays in the list, so that later arguments keep their numbers.

    With `floating` the bytes are an IEEE float (4) or double (8).
    """

    text: str
    kind: Literal["constant", "register", "memory", "unreadable"]
    size: int = 8
    signed: bool = False
    value: int = 0
    base: str | None = None
    index: str | None = None
    scale: int = 1
    reason: str = ""
    shift: int = 0
    floating: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a probe or a function as a user sees it.

    `type` is one of:

    - u8…u64, i8…i64, bool, pointer
    - f32, f64: the bits of an IEEE number in an integer operand
    - str, json: a pointer to a NUL-terminated string
    - bytes, text: a pointer to bytes or to a string, with the length in the operand after it
    - enum: an i32 whose numbers have the names in `names`

    An `optional` argument may be None. Then a pointer is NULL, and the operand after a number is 0, which else is 1.

    `operand` is the index, from 0, of its first operand. `unit` and `doc` are for people.
    """

    name: str
    type: str
    operand: int
    unit: str = field(default="", compare=False)
    doc: str = field(default="", compare=False)
    names: tuple[tuple[str, int], ...] = ()
    optional: bool = False

    @property
    def declared(self) -> str:
        """The type as it was declared, with a "?" if the value may be None."""
        return f"{self.type}?" if self.optional else self.type

    @property
    def width(self) -> int:
        """The number of operands that it takes."""
        return width_of(self.declared)


class Site(NamedTuple):
    """One place in the code where a probe can be hit.

    `address` and `semaphore` are virtual addresses of the file, corrected for prelinking; `base` is what the note says.
    The kernel attaches by the file offsets. `semaphore` is 0 if the site has none. Provider files made by usdtkit
    have a second site at `rejected_offset`, which a call hits when its values do not fit and the probe is therefore not
    fired; elsewhere it is 0.
    """

    address: int
    file_offset: int
    base: int
    semaphore: int
    semaphore_offset: int
    arguments_text: str
    operands: tuple[Operand, ...]
    rejected_offset: int = 0

    def to_json(self) -> dict[str, object]:
        """The site as a JSON object: integers, and the original text of all arguments as one string."""
        return {
            "address": self.address,
            "base": self.base,
            "semaphore": self.semaphore,
            "file_offset": self.file_offset,
            "arguments_text": _text(self.arguments_text),
        }


class Probe(NamedTuple):
    """A USDT probe: all its sites in one file. Bytes of names that are not UTF-8 are kept as surrogate escapes.

    `file` is the open file that the probe was read from. The kernel attaches to that file, even if another one has its
    path by then. Without it, a session opens `path` when it attaches.
    """

    path: str
    provider: str
    name: str
    sites: tuple[Site, ...]
    arguments: tuple[Argument, ...]
    doc: str = ""
    build_id: str = ""
    stability: str = ""
    file: OpenFile | None = None

    # Two openings of one file have the same probes.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Probe) and self[:-1] == other[:-1]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:-1])

    @property
    def spec(self) -> str:
        """PROVIDER:PROBE, as `usdtkit trace` accepts it."""
        return f"{self.provider}:{self.name}"

    def to_json(self) -> dict[str, object]:
        """The probe as a JSON object."""
        return {
            "path": _text(self.path),
            "build_id": self.build_id,
            "provider": _text(self.provider),
            "name": _text(self.name),
            "doc": _text(self.doc),
            "arguments": [{"name": _text(a.name), "type": a.type} for a in self.arguments],
            "sites": [site.to_json() for site in self.sites],
        }


@dataclass(frozen=True, slots=True)
class Function:
    """A function symbol that a uprobe can be put on.

    `name` is the symbol's name without its `version` ("GLIBC_2.34"). `demangled` is the name in the source, and
    `aliases` are the other names at this address; both are filled in only by searches that ask for them. An `indirect`
    function is a resolver that chooses the real one at run time. A `superseded` one has an old version, to which
    programs are no longer linked. `convention` says how the function is called: "go" with arguments in registers,
    "go-stack" and "go-i386" with arguments on the stack, "i386", or "" for the machine's C ABI. `file` is the open file
    that it was read from, as in `Probe`.
    """

    path: str
    name: str
    address: int
    size: int
    file_offset: int
    version: str = ""
    demangled: str = ""
    aliases: tuple[str, ...] = ()
    indirect: bool = False
    convention: str = ""
    superseded: bool = False
    file: OpenFile | None = field(default=None, compare=False, repr=False)

    @property
    def is_go(self) -> bool:
        """Whether it is in a Go program, whose stacks move."""
        return self.convention.startswith("go")

    def to_json(self) -> dict[str, object]:
        """The function as a JSON object."""
        return {
            "path": _text(self.path),
            "name": _text(self.name),
            "demangled": _text(self.demangled),
            "version": _text(self.version),
            "aliases": [_text(name) for name in self.aliases],
            "address": self.address,
            "size": self.size,
            "file_offset": self.file_offset,
            "indirect": self.indirect,
        }


class Truncated(str):
    """The beginning of a string of the traced program. The rest was not read."""


class PythonCaller(NamedTuple):
    """The function of Python that a hit came from (see `usdtkit.trace.pycaller`): its qualified name, and where in the
    source it was.

    Texts that are not known are "", and so is a line None.
    """

    function: str
    file: str
    line: int | None

    @property
    def source(self) -> str:
        """The place in the source without its directories, such as `shop.py:41`; "" where it is not known."""
        name = self.file.rpartition("/")[2]
        return f"{name}:{self.line}" if name and self.line is not None else name

    def __str__(self) -> str:
        return f"{self.function or '?'} ({self.source})" if self.source else self.function or "?"


class TruncatedBytes(bytes):
    """The beginning of a block of bytes of the traced program. The rest was not read."""


@dataclass(frozen=True, slots=True)
class UserPlace:
    """One offset of one file, where a breakpoint can be put; `name` is the name that its events carry.

    `file` is the open file, as in `Probe`. For the entry or the return of a `function`, `usdtkit.trace.returns` decides
    by what its `returns` are observed and `why`, and which `flags` its cookie has (the EXIT_… bits of
    `usdtkit.bpf.cookie`).
    """

    name: str
    path: str
    file_offset: int
    semaphore_offset: int = 0
    operands: tuple[Operand, ...] = ()
    file: OpenFile | None = field(default=None, compare=False, repr=False)
    rejected_offset: int = 0
    function: Function | None = None
    returns: ReturnsBy | Literal[""] = ""
    why: str = ""
    flags: int = 0

    @property
    def opened(self) -> OpenFile:
        """The open file, or without one the file that is at `path` now. NotFoundError, PrivilegeError."""
        from usdtkit.files import OpenFile

        return self.file or OpenFile.open(self.path)


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A static tracepoint of the kernel, such as Tracepoint("sched", "sched_process_exit")."""

    category: str
    name: str


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock of the kernel, which takes `frequency_hz` samples of what runs in user mode in a second of CPU time."""

    frequency_hz: int

    @property
    def name(self) -> str:
        """The name that its samples carry."""
        return f"clock:{self.frequency_hz}"


KernelPlace = Tracepoint | Clock
"""What belongs to the kernel itself. `usdtkit.kernel.attach` has a module for each kind."""

Place = UserPlace | KernelPlace
"""What a program in the kernel can be attached to."""


@dataclass(frozen=True, slots=True)
class Target:
    """One ELF file to search: `path` opens it from here, `name` is its path as the processes that map it see it.

    The two differ in a container, or if the file was deleted. `pids` are the scanned processes that map it, and
    `key` is the device and inode that it had then: `usdtkit.scan.open_target` opens that file or none. A path that
    a user named stands for whatever file is there now, and has no key.
    """

    path: str
    name: str
    pids: tuple[int, ...] = ()
    key: tuple[int, int] | None = field(default=None, compare=False, repr=False)


def _text(text: str) -> str:
    """The text with bytes that are not UTF-8 as visible escapes, which every JSON reader accepts."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
