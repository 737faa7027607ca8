"""What a target names → places of a session. Input: `nodes.Target`; output: `Resolved`, and what its arguments are.

NAME:NAME is LIBRARY:FUNCTION or PROVIDER:PROBE, whichever there is.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from usdtkit.elf.image import Image
from usdtkit.elf.sites import check_offset
from usdtkit.errors import NotFoundError, SpecError, UsageError, UsdtkitError
from usdtkit.language import nodes as n
from usdtkit.language.parser import parse_pattern, parse_target
from usdtkit.model import Probe
from usdtkit.trace import FunctionSpec, Session
from usdtkit.trace.specs import Resolved, resolve_probes


def resolve(session: Session, text: str, target: n.Target, *, regexp: bool = False) -> list[Resolved]:
    """The places of a target: of USDT probes one `Resolved` for each, since each has arguments of its own.

    With `regexp`, the names are regular expressions that are searched for.
    """
    if target.kind == "named" and not regexp:
        return _named(session, text, target)
    if target.kind == "usdt":
        return list(_each(find_probes(session, target, regexp=regexp)))
    return [_functions(session, text, target, regexp)]


def one(session: Session, spec: n.TraceSpec) -> Resolved:
    """The one target of a spec without conditions or values; functions of a glob are one. SpecError, NotFoundError."""
    if superfluous := spec.predicate or spec.format:
        raise SpecError("only a target belongs here", spec.text, superfluous.at)
    if spec.target.kind == "return":
        return session.resolve(function_spec(session, spec.target))
    first, *others = resolve(session, spec.text, spec.target)
    if others:
        raise SpecError(f"these are {len(others) + 1} different probes", spec.text, 0, hint="name one of them")
    return first


def _named(session: Session, text: str, target: n.Target) -> list[Resolved]:
    """A function is looked for first, in one file; but a glob such as mysql:* means probes, if there are any."""
    spec = f"{target.library}:{target.name}"
    is_glob = bool(set(target.name) & set("*?["))
    missing: UsdtkitError | None = None
    if not is_glob:
        try:
            return [_functions(session, text, target, False)]
        except NotFoundError as error:
            missing = error
    try:
        return list(_each(session.find_probes(spec)))
    except NotFoundError as error:
        if is_glob:
            with contextlib.suppress(NotFoundError):
                return [_functions(session, text, target, False)]
        if missing is None or not missing.message.startswith("no function"):
            raise  # there is no such library
        raise NotFoundError(f"no probe {spec}, and {missing.message}", hint=error.hint) from None


def matching(session: Session, text: str, *, regexp: bool = False) -> Resolved:
    """The places of a pattern together, for what needs no arguments. SpecError, NotFoundError."""
    target = parse_target(text, 0, len(text))
    if target.kind == "usdt":
        return resolve_probes(text, find_probes(session, target, regexp=regexp))
    try:
        return _functions(session, text, target, regexp)
    except NotFoundError as missing:
        if target.kind != "named" or regexp:
            raise
        try:
            return resolve_probes(text, session.find_probes(f"{target.library}:{target.name}"))
        except NotFoundError:
            raise missing from None


def find_probes(session: Session, target: n.Target, *, regexp: bool = False) -> list[Probe]:
    """The USDT probes of a target. NotFoundError."""
    if not regexp:
        return session.find_probes(f"{target.provider or '*'}:{target.name}", target.library or None)
    expression = _expression(f"{target.provider}:{target.name}")
    found = [probe for probe in session.find_probes("*:*", target.library or None) if expression.search(probe.spec)]
    if not found:
        raise NotFoundError(f"no probe matches {expression.pattern!r}", hint="usdtkit list shows probes")
    return found


def calls(session: Session, text: str, *, regexp: bool = False) -> FunctionSpec:
    """The functions of a pattern, for what measures their calls. SpecError, NotFoundError."""
    target = parse_pattern(text)
    if target.kind != "entry" or target.offset:
        raise SpecError("this is no function", text, 0, hint="LIBRARY:FUNCTION; between probes: usdtkit probelatency")
    return function_spec(session, target, regexp=regexp)


def function_spec(session: Session, target: n.Target, *, regexp: bool = False) -> FunctionSpec:
    """The functions of a target as a spec, for what needs their entries and returns."""
    if not regexp:
        return FunctionSpec(target.library, (target.name,), target.kind == "return")
    found = session.find_functions(target.library, [_expression(target.name)])
    return FunctionSpec(target.library, tuple(sorted({one.name for one in found})), target.kind == "return")


def _functions(session: Session, text: str, target: n.Target, regexp: bool) -> Resolved:
    spec = function_spec(session, target, regexp=regexp)
    resolved = session.resolve(spec)
    if not target.offset:
        return resolved
    for file, places in groupby(resolved.places, lambda place: place.opened):
        with Image(file.path, file) as image:
            for place in places:
                try:
                    if place.function is not None:
                        check_offset(image, place.function, target.offset)
                except UsageError as error:
                    raise SpecError(error.message, text, target.at, hint=error.hint) from None
    moved = (replace(each, file_offset=each.file_offset + target.offset, function=None) for each in resolved.places)
    return replace(resolved, places=tuple(moved), arguments=())


def _each(probes: Sequence[Probe]) -> Iterator[Resolved]:
    def order(probe: Probe) -> tuple[str, str]:
        return probe.spec, repr(probe.arguments)

    for (spec, _), same in groupby(sorted(probes, key=order), order):
        yield resolve_probes(spec, list(same))


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(f"{text!r} is no regular expression: {error}") from None
