"""Places of a session's sources in a file that came after the session was set up.

Input: what each source was asked for (`specs.Sought`), its hooks, and an open file. Output: places for these hooks, as
`definition` would have found them, and sentences about what differs. The program in the kernel does not change any
more, so a probe that was declared anew is read by the declaration that was known at the start: its arguments are found
by their names, and one that is missing cannot be read. Used by `discovery`, and by whoever waits for a first file.
"""

# Paths stay strings, as the model has them.
# ruff: noqa: PTH100, PTH119

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from usdtkit import libraries
from usdtkit.bpf.program import Hook
from usdtkit.elf import symbols
from usdtkit.elf.constants import STAPSDT_SECTION
from usdtkit.elf.image import Image
from usdtkit.errors import UnsupportedError
from usdtkit.model import Argument, Operand, Probe, UserPlace
from usdtkit.records import NamedTuple, dataclass, field, replace
from usdtkit.resolve import command
from usdtkit.scan import file_key
from usdtkit.signatures import known_arguments
from usdtkit.trace.specs import FunctionSpec, Resolved, Sought, UsdtSpec, place_of

if TYPE_CHECKING:
    from usdtkit.trace.returns import Returns

# Reads of it fail, and are counted as unreadable.
_MISSING = Operand("", "memory")
_INTEGERS = {f"{sign}{bits}": bits for sign in "ui" for bits in (8, 16, 32, 64)}

Places = list[tuple[Hook, Resolved]]


class Role(NamedTuple):
    """A hook that takes more places; of a function's returns, `call` is the hook of its entry.

    `resolved` says what was asked for, without its places; `names` are those of the probes or functions at these.
    """

    resolved: Resolved
    names: frozenset[str]
    hook: Hook
    call: Hook | None

    @classmethod
    def of(cls, resolved: Resolved, hook: Hook, call: Hook | None = None) -> Role:
        """The role of a hook that has these places."""
        names = frozenset(place.name for place in resolved.places)
        return cls(replace(resolved, places=(), parts=()), names, hook, call)

    def knows_goid(self, offset: int) -> bool:
        """Whether the program reads the number of a goroutine at this offset of its descriptor, or not at all."""
        hooks = [self.hook] if self.call is None else [self.hook, self.call]
        return all(hook.goid_offset == offset for hook in hooks if hook.reads_goid)


@dataclass
class Found:
    """Places for hooks, and what the user should know about them."""

    places: Places = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def may_be(word: str, name: str, *, key: object = None) -> bool:
    """Whether a mapped file is one that `word` names, as `targets.resolve` understands it.

    `name` is its path as the process sees it, `key` its device and inode if they are known.
    """
    name = name.removesuffix(" (deleted)")
    if "/" in word:
        path = os.path.abspath(word)
        if name == path or name.startswith(f"{path}/") or fnmatchcase(name, word):
            return True
        return key is not None and file_key(word) == key
    if os.path.basename(name) == word:  # a program: a command is the one that is in PATH
        return command(word) in ("", name)
    return libraries.is_called(name, word) or (word in libraries.MERGED and libraries.is_called(name, "c"))


def may_have(spec: UsdtSpec | FunctionSpec, name: str) -> bool:
    """Whether a file of this name is worth to be opened for what was asked for."""
    word = spec.library if isinstance(spec, FunctionSpec) else spec.path
    if word is None or may_be(word, name):
        return True
    return "/" in word and not set(word) & set("*?[")  # a path may lead there by links


class Wanted:
    """One open file, searched for each spec once."""

    def __init__(self, image: Image, name: str) -> None:
        """`name`: the path of the file as the process that maps it sees it."""
        self.image, self.name = image, name
        self._probes: tuple[Probe, ...] | None = None

    def probes(self, spec: UsdtSpec) -> list[Probe]:
        """The probes of the file that a spec names."""
        if spec.path is not None and not may_be(spec.path, self.name, key=self.image.file.key):
            return []
        if self._probes is None:
            from usdtkit.elf import notes  # lazy: most files have no probes

            has_notes = self.image.section(STAPSDT_SECTION) is not None
            self._probes = notes.read_probes(self.image, known=known_arguments) if has_notes else ()
        return [probe for probe in self._probes if fnmatchcase(probe.spec, spec.name)]

    def functions(self, spec: FunctionSpec) -> Resolved | None:
        """The entries of the functions of the file that a spec names."""
        if not may_be(spec.library, self.name, key=self.image.file.key):
            return None
        functions = symbols.functions(self.image, *spec.functions, in_source=True)
        return spec.of(functions) if functions else None

    def has(self, spec: UsdtSpec | FunctionSpec) -> bool:
        """Whether the file has anything that a spec names."""
        return bool(self.probes(spec)) if isinstance(spec, UsdtSpec) else self.functions(spec) is not None


class Later:
    """What files that come later are searched for."""

    def __init__(self, sources: Sequence[tuple[Role, ...]], returns: Returns) -> None:
        """`sources`: the roles of each; a pair of probes has two. Sources that share what they were asked for are
        alternatives."""
        self._returns = returns
        self._alternatives: dict[tuple[int, ...], list[tuple[Role, ...]]] = {}
        for roles in sources:
            if all(role.resolved.sought is not None for role in roles):
                self._alternatives.setdefault(tuple(id(role.resolved.sought) for role in roles), []).append(roles)
        self.specs = list(
            dict.fromkeys(
                spec
                for alternatives in self._alternatives.values()
                for role in alternatives[0]
                for spec in _specs(role.resolved.sought)
            )
        )

    def may_have(self, name: str) -> bool:
        """Whether a file of this name is worth to be opened."""
        return any(may_have(spec, name) for spec in self.specs)

    def search(self, wanted: Wanted) -> Found:
        """The places of all sources in a file."""
        found = Found()
        for alternatives in self._alternatives.values():
            if len(alternatives[0]) == 1:
                self._single(wanted, [roles[0] for roles in alternatives], found)
            else:
                self._pair(wanted, alternatives, found)
        return found

    def _single(self, wanted: Wanted, roles: Sequence[Role], found: Found) -> None:
        for spec in _specs(roles[0].resolved.sought):
            if isinstance(spec, FunctionSpec):
                self._add_functions(wanted, spec, roles[0], found)
            else:
                for probe in wanted.probes(spec):
                    _add_probe(probe, max(roles, key=lambda role: _fit(probe, role)), found)

    def _pair(self, wanted: Wanted, alternatives: Sequence[tuple[Role, ...]], found: Found) -> None:
        def probes_of(role: Role) -> list[Probe]:
            return [
                probe
                for spec in _specs(role.resolved.sought)
                if isinstance(spec, UsdtSpec)
                for probe in wanted.probes(spec)
            ]

        probes = [probes_of(role) for role in alternatives[0]]
        best = max(
            alternatives,
            key=lambda roles: [_fit(probe, role) for role, own in zip(roles, probes, strict=True) for probe in own],
        )
        for role, own in zip(best, probes, strict=True):
            for probe in own:
                _add_probe(probe, role, found)
            for spec in _specs(role.resolved.sought):
                if isinstance(spec, FunctionSpec):
                    self._add_functions(wanted, spec, role, found)

    def _add_functions(self, wanted: Wanted, spec: FunctionSpec, role: Role, found: Found) -> None:
        entered = wanted.functions(spec)
        if entered is None:
            return
        path = wanted.image.file.path
        if role.hook.kind == "usdt":  # hits of functions that are counted as those of probes
            places = (replace(place, function=None) for place in entered.user_places)
            found.places.append((role.hook, replace(role.resolved, places=tuple(places))))
            return
        if entered.convention != role.hook.convention:
            found.remarks.append(f"{path}: the functions of {spec.what} are called in another way there: not traced")
            return
        if entered.convention == "go" and not role.knows_goid(self._returns.goid_offset(entered)):
            found.remarks.append(f"{path}: goid is elsewhere in its version of Go: {spec.what} is not traced there")
            return
        try:
            if role.call is None:
                found.places.append((role.hook, self._returns.entered(entered)))
            else:
                entries, leaving = self._returns.of(replace(entered, kind="entry"))
                found.places += [(role.call, entries), (role.hook, leaving)]
        except UnsupportedError as error:
            found.remarks.append(f"{path}: {error.message}")


def _specs(sought: Sought | None) -> Sequence[UsdtSpec | FunctionSpec]:
    return () if sought is None else sought.specs


def _fit(probe: Probe, role: Role) -> tuple[bool, bool, int, int]:
    """How well a hook suits a probe: the larger, the better."""
    has_name = probe.spec in role.names
    wanted = role.hook.arguments
    missing = len(list(_missing(probe, wanted)))
    return has_name or missing == 0, has_name, len(wanted) - missing, -missing


def _missing(probe: Probe, wanted: Sequence[Argument]) -> Iterator[str]:
    own = {argument.name: argument for argument in probe.arguments}
    for argument in wanted:
        if argument.name not in own or not _suits(own[argument.name].type, argument.type):
            yield argument.name


def _suits(found: str, known: str) -> bool:
    """Whether a value of one type can be read as one of the other."""
    if found == known:
        return True
    if found not in _INTEGERS or known not in _INTEGERS:
        return False
    is_wider = _INTEGERS[found] < _INTEGERS[known]
    return is_wider and (found[0] == known[0] or known[0] == "i")


def _add_probe(probe: Probe, role: Role, found: Found) -> None:
    wanted = role.hook.arguments
    places = [place_of(probe, site) for site in probe.sites]
    if probe.arguments != wanted:
        places = [replace(place, operands=_arranged(place, probe.arguments, wanted)) for place in places]
        if missing := ", ".join(_missing(probe, wanted)):
            found.remarks.append(f"{probe.path}: {probe.spec} has no such {missing}, which cannot be read there")
    found.places.append((role.hook, replace(role.resolved, places=tuple(places))))


def _arranged(place: UserPlace, own: Sequence[Argument], wanted: Sequence[Argument]) -> tuple[Operand, ...]:
    """The operands of a site where the program looks for those of the arguments that it knows."""
    by_name = {argument.name: argument for argument in own}
    arranged: dict[int, Operand] = {}
    for argument in wanted:
        found = by_name.get(argument.name)
        is_there = found is not None and _suits(found.type, argument.type)
        for part in range(argument.width):
            operand = _MISSING
            if found is not None and is_there and found.operand + part < len(place.operands):
                operand = place.operands[found.operand + part]
            arranged[argument.operand + part] = operand
    return tuple(arranged.get(index, _MISSING) for index in range(max(arranged, default=-1) + 1))
