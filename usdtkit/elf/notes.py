"""An open ELF file → its USDT probes: `.note.stapsdt` read note by note, sites of one name joined, arguments named.

Input `usdtkit.elf.image.Image`, output `usdtkit.model.Probe`; used by `usdtkit.targets`. Names and types of arguments
come from our own note in the file (`.note.usdtkit`), else from what the caller knows of the provider, else they are
arg1…argN.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

from usdtkit.argumenttypes import width_of
from usdtkit.elf import metadata, symbols
from usdtkit.elf.arguments import parse, parse_anywhere
from usdtkit.elf.constants import NT_STAPSDT, SHT_NOTE, STAPSDT_BASE_SECTION, STAPSDT_OWNER, STAPSDT_SECTION
from usdtkit.elf.image import MOST_NOTES, Image
from usdtkit.elf.stubs import REJECTED
from usdtkit.errors import ElfError
from usdtkit.model import Argument, Operand, Probe, Site
from usdtkit.records import replace

KnownArguments = Callable[[str, str], "tuple[tuple[str, str], ...] | None"]
"""(provider, probe) → (name, type) of each argument, or None."""

# A virtual machine for Java has five hundred sites; this many are read in less than a second.
_SIZES = (1, 2, 4, 8)
_TYPES = {
    (floating, signed): {size: f"{'f' if floating else 'i' if signed else 'u'}{8 * size}" for size in _SIZES}
    for floating in (False, True)
    for signed in (False, True)
}
_OWNER = STAPSDT_OWNER.encode() + b"\0"
_MOST_SITES, _LARGEST_NOTES = 50_000, 16 << 20


def read_probes(image: Image, *, path: str | None = None, known: KnownArguments | None = None) -> tuple[Probe, ...]:
    """Return all probes of the file, in the order of their first notes, with `path` in them (default: the image's).

    `known` names the arguments of probes of other software. A damaged note section raises ElfError. A single note that
    makes no sense, or a site outside of the code, is left out, and one warning for the file is logged.
    """
    path = image.path if path is None else path
    problems: list[str] = []
    by_probe = _sites_by_probe(image, problems)
    declared = _metadata(image, problems) if by_probe else {}
    build_id, file = image.build_id, image.file
    numbered: dict[int, tuple[Argument, ...]] = {}
    probes: list[Probe] = []
    new: Callable[..., Probe] = tuple.__new__  # as below
    for (provider, name), sites in by_probe.items():
        operands = sites[0].operands if len(sites) == 1 else _widest(sites)
        arguments, doc, stability = None, "", ""
        if declared and (declaration := declared.get((provider, name))) is not None:
            arguments = _declared_arguments(declaration, len(operands))
            if arguments is None:
                problems.append(f"{provider}:{name}: its metadata does not fit its {len(operands)} operands")
            sites = [_with_rejected(image, site) for site in sites]
            doc, stability = declaration.doc, declaration.stability
        if arguments is None and known is not None and (pairs := known(provider, name)) is not None:
            arguments = name_operands(len(operands), pairs)
        if arguments is None:
            # Sites with equal texts share one tuple of operands, whose number is quicker to look up than its hash. A
            # tuple that `_widest` has made lives no longer than this round, and its number could come again.
            arguments = numbered.get(id(operands)) if len(sites) == 1 else None
            if arguments is None:
                arguments = _numbered(tuple(map(_type_of, operands)))
                if len(sites) == 1:
                    numbered[id(operands)] = arguments
        probes.append(new(Probe, (path, provider, name, tuple(sites), arguments, doc, build_id, stability, file)))
    if problems:
        _warn(path, problems)
    return tuple(probes)


def _declared_arguments(declaration: metadata.Declared, operands: int) -> tuple[Argument, ...] | None:
    """The arguments as the metadata has them; None if they do not take as many operands as there are."""
    arguments = name_operands(operands, declaration.arguments)
    if arguments is None:
        return None
    return tuple(
        replace(argument, **details) if details else argument
        for argument, details in zip(arguments, declaration.details, strict=True)
    )


# Most probes of a file share their arguments with others, and finding an object costs less than making one.
@lru_cache(maxsize=1024)
def name_operands(count: int, pairs: tuple[tuple[str, str], ...]) -> tuple[Argument, ...] | None:
    """Return the arguments that (name, type) pairs make of the operands; None if their numbers do not fit exactly."""
    arguments, position = [], 0
    for name, kind in pairs:
        arguments.append(Argument(name, kind.removesuffix("?"), position, "", "", (), kind.endswith("?")))
        position += width_of(kind)
    return tuple(arguments) if position == count else None


@lru_cache(maxsize=1024)
def _numbered(types: tuple[str, ...]) -> tuple[Argument, ...]:
    return tuple(map(_numbered_argument, range(len(types)), types))


@lru_cache(maxsize=256)
def _numbered_argument(position: int, kind: str) -> Argument:
    return Argument(f"arg{position + 1}", kind, position, "", "", (), False)


def _sites_by_probe(image: Image, problems: list[str]) -> dict[tuple[str, str], list[Site]]:
    """The sites of each (provider, probe), in the order of the notes."""
    base_address = _base_address(image)
    resolve_symbol = symbols.Addresses(image).find
    machine, mask, file_offset = image.machine, (1 << image.bits) - 1, image.file_offset
    by_probe: dict[tuple[str, str], list[Site]] = {}
    anywhere: dict[str, tuple[Operand, ...] | None] = {}  # by their text, which sites share
    new: Callable[..., Site] = tuple.__new__  # what Site() comes to, at a third of the time
    for provider, name, location, base, semaphore, text in _notes(image, problems):
        distance = base_address - base if base_address and base else 0
        address = location + distance & mask
        semaphore_offset = 0
        try:
            offset = file_offset(address)
        except ElfError as error:
            problems.append(f"{provider}:{name}: {error.message}")
            continue
        if semaphore:
            semaphore = semaphore + distance & mask
            try:
                semaphore_offset = file_offset(semaphore, writable=True)
            except ElfError as error:
                problems.append(f"semaphore: {error.message}")
        try:
            operands = anywhere[text]
        except KeyError:
            operands = anywhere[text] = parse_anywhere(text, machine)
        if operands is None:
            operands = parse(text, machine, site_address=address, resolve_symbol=resolve_symbol)
        site = new(Site, (address, offset, base, semaphore, semaphore_offset, text, operands, 0))
        key = provider, name
        if key in by_probe:
            by_probe[key].append(site)
        else:
            by_probe[key] = [site]
    return by_probe


def sites_of(image: Image) -> set[int]:
    """Return the virtual addresses of all sites of the file."""
    base_address, mask = _base_address(image), (1 << image.bits) - 1
    return {
        location + (base_address - base if base_address and base else 0) & mask
        for _, _, location, base, _, _ in _notes(image, [])
    }


def names_of_probes(image: Image) -> set[str]:
    """Return PROVIDER:PROBE of all probes of the file, whose arguments are not read."""
    return {f"{provider}:{name}" for provider, name, *_ in _notes(image, [])}


def _base_address(image: Image) -> int:
    """Where the section .stapsdt.base is now, 0 if there is none.

    A note says where it was when the note was written. prelink moves code and data but no notes, so the difference is
    how far it has moved the file. A base of 0 in a note was never recorded.
    """
    section = image.section(STAPSDT_BASE_SECTION)
    return section.address if section is not None else 0


def _notes(image: Image, problems: list[str]) -> Iterator[tuple[str, str, int, int, int, str]]:
    """(provider, name, location, base, semaphore, argument string) of each note of a probe site."""
    addresses = struct.Struct(image.byte_order + ("3Q" if image.bits == 64 else "3I"))
    unpack, strings_at = addresses.unpack_from, addresses.size
    sites, walked, size = 0, 0, 0
    for section in image.sections:
        if section.name != STAPSDT_SECTION or section.type != SHT_NOTE:
            continue
        size += section.size
        if size > _LARGEST_NOTES:
            raise ElfError(f"{image.path}: damaged: {size} bytes of notes")
        places = image.note_places(section.offset, section.size, section.alignment)
        for kind, data, owner_at, owner_size, start, end in places:
            walked += 1
            if walked > MOST_NOTES:
                raise ElfError(f"{image.path}: damaged: more than {MOST_NOTES} notes")
            if kind != NT_STAPSDT or owner_size != len(_OWNER) or not data.startswith(_OWNER, owner_at):
                continue
            sites += 1
            if sites > _MOST_SITES:
                raise ElfError(f"{image.path}: damaged: more than {_MOST_SITES} probe sites")
            # provider, name and arguments, each closed by a NUL; what follows the third is padding
            strings = data[start + strings_at : end].decode("utf-8", "surrogateescape").split("\0", 3)
            try:
                provider, name, text, _ = strings
            except ValueError:
                provider, name, text = strings if len(strings) == 3 else ("", "", "")
            if not provider or not name:
                problems.append(f"a note of {end - start} bytes without provider and name")
                continue
            location, base, semaphore = unpack(data, start)
            yield provider, name, location, base, semaphore, text


def _with_rejected(image: Image, site: Site) -> Site:
    """The site, with the second one that provider files have beside it, if its code is where usdtkit writes it."""
    distance, code = REJECTED.get(image.machine, (0, b""))
    offset = site.file_offset + distance
    if not code or offset + len(code) > image.size or image.read(offset, len(code)) != code:
        return site
    return site._replace(rejected_offset=offset)


def _widest(sites: list[Site]) -> tuple[Operand, ...]:
    """The widest readable operand of each argument over all sites: compilers narrow an operand where they can."""
    longest = max(sites, key=lambda site: len(site.operands)).operands
    best = list(longest)
    for site in sites:
        for position, operand in enumerate(site.operands):
            if (operand.kind != "unreadable", operand.size) > (
                best[position].kind != "unreadable",
                best[position].size,
            ):
                best[position] = operand
    return tuple(best)


def _type_of(operand: Operand) -> str:
    return _TYPES[operand.floating and operand.size >= 4, operand.signed][operand.size]


def _metadata(image: Image, problems: list[str]) -> dict[tuple[str, str], metadata.Declared]:
    declared: dict[tuple[str, str], metadata.Declared] = {}
    section = image.section(metadata.SECTION)
    if section is None or section.type != SHT_NOTE:
        return declared
    if section.size > metadata.MAX_SIZE:
        problems.append(f"{metadata.SECTION} is not read: {section.size} bytes")
        return declared
    for owner, kind, description in image.notes(section.offset, section.size, section.alignment):
        if owner == metadata.OWNER.encode() and kind == metadata.TYPE:
            try:
                declared.update(metadata.decode(description))
            except metadata.ERRORS as error:
                problems.append(f"{metadata.SECTION} is not understood: {error!r}")
    return declared


def _warn(path: str, problems: list[str]) -> None:
    import logging  # costs more than reading a file, and is hardly ever needed

    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    logging.getLogger(__name__).warning("%s: left out: %s%s", path, problems[0], more)
