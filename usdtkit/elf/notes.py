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
from usdtkit.elf.arguments import parse
from usdtkit.elf.arguments.common import SymbolResolver
from usdtkit.elf.constants import NT_STAPSDT, SHT_NOTE, STAPSDT_BASE_SECTION, STAPSDT_OWNER, STAPSDT_SECTION
from usdtkit.elf.image import MOST_NOTES, Image
from usdtkit.elf.stubs import REJECTED
from usdtkit.errors import ElfError
from usdtkit.model import Argument, Operand, Probe, Site
from usdtkit.records import replace

KnownArguments = Callable[[str, str], "tuple[tuple[str, str], ...] | None"]
"""(provider, probe) → (name, type) of each argument, or None."""

# A virtual machine has five hundred; this many are read in less than a second.
_OWNER = STAPSDT_OWNER.encode()
_MOST_SITES, _LARGEST_NOTES = 50_000, 16 << 20


def read_probes(image: Image, *, path: str | None = None, known: KnownArguments | None = None) -> tuple[Probe, ...]:
    """All probes of the file, in the order of their first notes. `path` goes into them (default: the image's).

    A damaged note section raises ElfError. A single note that makes no sense, or a site outside of the code, is left
    out, with one logged warning a file.
    """
    path = image.path if path is None else path
    problems: list[str] = []
    found: dict[tuple[str, str], list[Site]] = {}
    resolve, moved = symbols.Addresses(image).find, _moved(image)
    for provider, name, addresses, text in _notes(image, problems):
        try:
            site = _site(image, addresses, text, moved, resolve, problems)
        except ElfError as error:
            problems.append(f"{provider}:{name}: {error.message}")
            continue
        found.setdefault((provider, name), []).append(site)
    declared = _metadata(image, problems) if found else {}
    build_id = image.build_id
    probes = []
    numbered: dict[int, tuple[tuple[Operand, ...], tuple[Argument, ...]]] = {}
    for (provider, name), sites in found.items():
        said = declared.get((provider, name)) if declared else None
        operands = _widest(sites) if len(sites) > 1 else sites[0].operands
        arguments = name_operands(len(operands), said.arguments) if said else None
        if said and arguments is not None:
            arguments = tuple(
                replace(argument, **more) if more else argument
                for argument, more in zip(arguments, said.details, strict=True)
            )
        if said and arguments is None:
            problems.append(f"{provider}:{name}: its metadata does not fit its {len(operands)} operands")
        if arguments is None and known is not None and (pairs := known(provider, name)) is not None:
            arguments = name_operands(len(operands), pairs)
        if arguments is None:
            # Equal operands are mostly one object; kept here, so that no other takes its number.
            _, arguments = numbered.get(id(operands)) or numbered.setdefault(
                id(operands), (operands, _numbered(tuple(map(_type_of, operands))))
            )
        if said:
            sites = [_with_rejected(image, site) for site in sites]
        doc, stability = (said.doc, said.stability) if said else ("", "")
        probes.append(Probe(path, provider, name, tuple(sites), arguments, doc, build_id, stability, image.file))
    if problems:
        _warn(path, problems)
    return tuple(probes)


# Most probes of a file share their arguments with others, and to make an object costs more than to find one.
@lru_cache(maxsize=1024)
def name_operands(count: int, pairs: tuple[tuple[str, str], ...]) -> tuple[Argument, ...] | None:
    """Lay (name, type) pairs over so many operands, as many as each type takes; None where they do not fit exactly."""
    arguments, position = [], 0
    for name, kind in pairs:
        arguments.append(Argument(name, kind, position))
        position += width_of(kind)
    return tuple(arguments) if position == count else None


@lru_cache(maxsize=1024)
def _numbered(types: tuple[str, ...]) -> tuple[Argument, ...]:
    return tuple(Argument(f"arg{position + 1}", kind, position) for position, kind in enumerate(types))


def _notes(image: Image, problems: list[str]) -> Iterator[tuple[str, str, tuple[int, int, int], str]]:
    addresses = struct.Struct(image.byte_order + ("3Q" if image.bits == 64 else "3I"))
    count, walked, size, at = 0, 0, 0, addresses.size
    for section in image.sections:
        if section.name != STAPSDT_SECTION or section.type != SHT_NOTE:
            continue
        size += section.size
        if size > _LARGEST_NOTES:
            raise ElfError(f"{image.path}: damaged: {size} bytes of notes")
        for owner, kind, description in image.notes(section.offset, section.size, section.alignment):
            walked += 1
            if walked > MOST_NOTES:
                raise ElfError(f"{image.path}: damaged: more than {MOST_NOTES} notes")
            if owner != _OWNER or kind != NT_STAPSDT:
                continue
            count += 1
            if count > _MOST_SITES:
                raise ElfError(f"{image.path}: damaged: more than {_MOST_SITES} probe sites")
            # provider, name and arguments, each closed by a NUL; what follows the third is padding
            strings = description[at:].decode("utf-8", "surrogateescape").split("\0", 3)
            if len(strings) < 3 or not strings[0] or not strings[1]:
                problems.append(f"a note of {len(description)} bytes without provider and name")
                continue
            yield strings[0], strings[1], addresses.unpack_from(description), strings[2]


def sites_of(image: Image) -> set[int]:
    """The virtual addresses of all sites of the file."""
    moved = _moved(image)
    return {(location + moved(base)) % (1 << image.bits) for _, _, (location, base, _), _ in _notes(image, [])}


def _moved(image: Image) -> Callable[[int], int]:
    """How far prelink moved the file, by the base that a note says: code and data move, but not the notes.

    The section .stapsdt.base tells. A base of 0 was never recorded.
    """
    section = image.section(STAPSDT_BASE_SECTION)
    address = section.address if section is not None else 0
    return lambda base: address - base if address and base else 0


def _site(
    image: Image,
    addresses: tuple[int, int, int],
    text: str,
    moved: Callable[[int], int],
    resolve: SymbolResolver,
    problems: list[str],
) -> Site:
    location, base, semaphore = addresses
    mask, distance = (1 << image.bits) - 1, moved(base)
    address = location + distance & mask
    offset = image.file_offset(address)
    semaphore_offset = 0
    if semaphore:
        semaphore = semaphore + distance & mask
        try:
            semaphore_offset = image.file_offset(semaphore, writable=True)
        except ElfError as error:
            problems.append(f"semaphore: {error.message}")
    operands = parse(text, image.machine, site_address=address, resolve_symbol=resolve)
    return Site(address, offset, base, semaphore, semaphore_offset, text, operands)


def _with_rejected(image: Image, site: Site) -> Site:
    """The site with that of calls that cannot be fired, if its code is where usdtkit puts it."""
    distance, code = REJECTED.get(image.machine, (0, b""))
    offset = site.file_offset + distance
    if not code or offset + len(code) > image.size or image.read(offset, len(code)) != code:
        return site
    return replace(site, rejected_offset=offset)


def _widest(sites: list[Site]) -> tuple[Operand, ...]:
    """For each argument the widest readable operand over the sites, for a compiler may narrow one of them."""
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
    kind = "f" if operand.floating and operand.size >= 4 else "i" if operand.signed else "u"
    return f"{kind}{8 * operand.size}"


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
