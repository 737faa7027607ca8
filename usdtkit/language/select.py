"""A target → the places in a session that it names.

Input: `nodes.Target`, or the text of one, and a session. Output: `Resolved`, which has places and their arguments. The
target NAME:NAME stands for LIBRARY:FUNCTION or for PROVIDER:PROBE, whichever exists.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from usdtkit.elf.image import Image
from usdtkit.elf.sites import check_offset
from usdtkit.elf.symbols import other_copies
from usdtkit.errors import NotFoundError, SpecError, UsageError, UsdtkitError
from usdtkit.language import nodes
from usdtkit.model import Probe
from usdtkit.naming import exact, name_of
from usdtkit.records import replace
from usdtkit.trace import FunctionSpec, Resolved, Session
from usdtkit.trace.specs import Sought, UsdtSpec, resolve_probes, sought_probes


def resolve(session: Session, text: str, target: nodes.Target, *, regexp: bool = False) -> list[Resolved]:
    """The places of a target. Each USDT probe is a `Resolved` by itself, because it has arguments of its own.

    With `regexp`, the names in the target are regular expressions, which may match anywhere in a name.
    """
    if target.kind == "named" and not regexp:
        return _named(session, text, target)
    if target.kind == "usdt":
        return list(_by_probe(find_probes(session, target, regexp=regexp), _sought(target, regexp)))
    return [_functions(session, text, target, regexp)]


def resolve_single(session: Session, spec: nodes.TraceSpec) -> Resolved:
    """The places of a spec, which must name one probe, or any number of functions. SpecError, NotFoundError."""
    if spec.target.kind == "return":
        return resolve_functions(session, spec.target)
    first, *others = resolve(session, spec.text, spec.target)
    if others:
        raise SpecError(f"this names {len(others) + 1} different probes", spec.text, 0, hint="name one of them")
    return first


def _named(session: Session, text: str, target: nodes.Target) -> list[Resolved]:
    """The places of NAME:NAME. A function comes first, because one file shows whether it exists.

    A glob such as mysql:* stands for probes if there are any, and for functions otherwise.
    """
    if _is_function(target):
        return [_functions(session, text, target, False)]
    spec = f"{target.library}:{target.name}"
    is_glob = name_of(target.name) is None
    missing: UsdtkitError | None = None
    if not is_glob:
        try:
            return [_functions(session, text, target, False)]
        except NotFoundError as error:
            missing = error
    try:
        return list(_by_probe(session.find_probes(spec), Sought([UsdtSpec(spec)])))
    except NotFoundError as error:
        if is_glob:
            with contextlib.suppress(NotFoundError):
                return [_functions(session, text, target, False)]
        if missing is None or not missing.message.startswith("no function"):
            raise  # the library does not exist
        raise NotFoundError(f"no probe {spec}, and {missing.message}", hint=error.hint) from None


def _is_function(target: nodes.Target) -> bool:
    """Whether NAME:NAME can only mean a function: a path is no provider, and no name of a probe has colons."""
    return "/" in target.library or ":" in target.name


def matching(
    session: Session, text: str, target: nodes.Target, *, regexp: bool = False, apart: bool = False
) -> list[Resolved]:
    """The places of a pattern that counts: functions if there are any, and otherwise probes. SpecError, NotFoundError.

    Probes are one `Resolved`, or with `apart` each is one by itself, so that its arguments can be read.
    """
    if target.kind == "usdt":
        probes, sought = find_probes(session, target, regexp=regexp), _sought(target, regexp)
    else:
        try:
            return [_functions(session, text, target, regexp)]
        except NotFoundError as missing:
            if target.kind != "named" or regexp or _is_function(target):
                raise
            spec = f"{target.library}:{target.name}"
            try:
                probes, sought = session.find_probes(spec), Sought([UsdtSpec(spec)])
            except NotFoundError:
                raise missing from None
    return [*_by_probe(probes, sought)] if apart else [resolve_probes(text, probes, sought)]


def find_probes(session: Session, target: nodes.Target, *, regexp: bool = False) -> list[Probe]:
    """The USDT probes of a target. NotFoundError."""
    if not regexp:
        return session.find_probes(f"{target.provider or '*'}:{target.name}", target.library or None)
    expression = _expression(f"{target.provider}:{target.name}")
    probes = [probe for probe in session.find_probes("*:*", target.library or None) if expression.search(probe.spec)]
    if not probes:
        raise NotFoundError(f"no probe matches {expression.pattern!r}", hint="usdtkit list shows probes")
    return probes


def resolve_functions(session: Session, target: nodes.Target, *, regexp: bool = False) -> Resolved:
    """The places of a target of functions. A remark of the session says which copies of them a name does not mean."""
    resolved = session.resolve(function_spec(session, target, regexp=regexp))
    if regexp or name_of(target.name) is None:
        return resolved
    for file, places in groupby(resolved.user_places, lambda place: place.opened):
        functions = [place.function for place in places if place.function is not None]
        with Image(file.path, file) as image:
            copies = other_copies(image, functions)
        if copies:
            names = " and ".join(sorted({function.demangled or function.name for function in functions}))
            session.remark(f"not traced: copies of {names} that some callers call instead: {', '.join(copies)}")
    return resolved


def function_spec(session: Session, target: nodes.Target, *, regexp: bool = False) -> FunctionSpec:
    """The functions of a target as a spec, from which a session makes entries and returns."""
    if not regexp:
        return FunctionSpec(target.library, (target.name,), target.kind == "return")
    functions = session.find_functions(target.library, [_expression(target.name)])
    names = tuple(sorted({exact(function.name) for function in functions}))
    return FunctionSpec(target.library, names, target.kind == "return")


def _functions(session: Session, text: str, target: nodes.Target, regexp: bool) -> Resolved:
    resolved = resolve_functions(session, target, regexp=regexp)
    if not target.offset:
        return resolved
    for file, places in groupby(resolved.user_places, lambda place: place.opened):
        with Image(file.path, file) as image:
            for place in places:
                try:
                    if place.function is not None:
                        check_offset(image, place.function, target.offset)
                except UsageError as error:
                    raise SpecError(error.message, text, target.at, hint=error.hint) from None
    moved = (
        replace(place, file_offset=place.file_offset + target.offset, function=None) for place in resolved.user_places
    )
    return replace(resolved, places=tuple(moved), arguments=(), sought=None)


def _sought(target: nodes.Target, regexp: bool) -> Sought | None:
    """What a target of probes is about; None for a regular expression, which is about the names that it has found."""
    name = f"{target.provider or '*'}:{target.name}"
    return None if regexp else Sought([UsdtSpec(name, target.library or None)])


def _by_probe(probes: Sequence[Probe], sought: Sought | None) -> Iterator[Resolved]:
    """Each probe by itself. They are alternatives to each other for probes in later files."""
    sought = sought or sought_probes(probes)

    def order(probe: Probe) -> tuple[str, str]:
        return probe.spec, repr(probe.arguments)

    for (spec, _), same in groupby(sorted(probes, key=order), order):
        yield resolve_probes(spec, list(same), sought)


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is not a regular expression: {error}") from None
