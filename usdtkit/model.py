"""The nouns that everything else exchanges: frozen data without I/O.

Made by `elf` (from files) and `targets` (from processes), read by `bpf`, `trace`, `output` and `cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from usdtkit.argumenttypes import width_of
from usdtkit.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from usdtkit.files import OpenFile

RETURN_POLICIES = ("auto", "sites", "probes")
"""How a session may see the returns of functions (see `usdtkit.trace.returns`)."""


@dataclass(frozen=True, slots=True)
class Operand:
    """Where one argument lies when a probe site is hit, as one operand of the note's argument string.

    The value is read as `size` bytes (1, 2, 4, 8), sign-extended when `signed`:

    - constant: `value`
    - register: the bytes of register `base` from bit `shift` on (8 for %ah, else 0)
    - memory: the bytes at `base + index * scale + value`; with the program counter as base ("rip", "eip", "pc") the
      site's own address is the base
    - unreadable: nothing; `reason` says why. It keeps its place, so that later arguments keep their numbers.

    With `floating` the bytes are those of an IEEE float (4) or double (8).
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

    `type` is one of u8…u64, i8…i64, bool, f32 and f64 (the bits of an IEEE number in an integer operand), str (pointer
    to a NUL-terminated string), json (the same), bytes (pointer, and the length in the operand after it), text (a
    string given so), enum (i32; `names` are those of its numbers), pointer. `operand` is the index, from 0, of its
    (first) operand. `unit` and `doc` are for people.
    """

    name: str
    type: str
    operand: int
    unit: str = field(default="", compare=False)
    doc: str = field(default="", compare=False)
    names: tuple[tuple[str, int], ...] = ()

    @property
    def width(self) -> int:
        """How many operands it takes."""
        return width_of(self.type)


class Site(NamedTuple):
    """One place in the code where a probe can be hit.

    `address` and `semaphore` are virtual addresses of the file, moved by the prelink base where that differs;
    `base` is as the note says. The offsets are what the kernel attaches by. `semaphore` is 0 where there is none.
    `rejected_offset` is that of the site which a call that could not be fired hits in place of this one, as provider
    files of usdtkit have it, or 0.
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
        """As an object of JSON; numbers are integers, the original text of all arguments is one string."""
        return {
            "address": self.address,
            "base": self.base,
            "semaphore": self.semaphore,
            "file_offset": self.file_offset,
            "arguments_text": _text(self.arguments_text),
        }


class Probe(NamedTuple):
    """A USDT probe: all its sites in one file. Bytes of names that are not UTF-8 are kept as surrogate escapes.

    `file` is the file that it was read from, still open, so that the kernel attaches to that one and to no other that
    has its path by then. Without it, `path` is opened when a session attaches.
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
        """PROVIDER:PROBE, the spelling that `usdtkit trace` takes."""
        return f"{self.provider}:{self.name}"

    def to_json(self) -> dict[str, object]:
        """As an object of JSON."""
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

    `name` is as the symbol table has it, without `version` ("GLIBC_2.34"), `demangled` as its programmer wrote it,
    where it was looked for so. `aliases` are the other names at this address, where they were asked for. An `indirect`
    function is only the resolver that chooses the real one. `convention` says how it is called: "go", "i386", or "" as
    the machine's ABI has it for C. `file` is the file that it was read from, as `Probe` has it.
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
    file: OpenFile | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, object]:
        """As an object of JSON."""
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


@dataclass(frozen=True, slots=True)
class Target:
    """One ELF file to look into: `path` opens it from here, `name` is what the processes that map it call it.

    The two differ in a container, or where the file was deleted. `pids` are those of the scan that map it, and `key`
    the device and inode that it had then: `usdtkit.scan.open_target` opens that file or none. A path that a user
    has named means whatever file is there, and has no key.
    """

    path: str
    name: str
    pids: tuple[int, ...] = ()
    key: tuple[int, int] | None = field(default=None, compare=False, repr=False)


def _text(text: str) -> str:
    """Bytes that are no UTF-8 as visible escapes, which every reader of JSON takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
