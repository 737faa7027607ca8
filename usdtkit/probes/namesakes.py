"""Two declarations of one name: what differs between them, and which of two providers gives way.

Input: probes and providers of `provider`, and the `registry`. Output: the text of an error; or ready-made probes that
are silenced, because the program has declared some of the same names.
"""

from __future__ import annotations

from usdtkit.probes import registry
from usdtkit.probes.compiled import Probe, native, report
from usdtkit.probes.declaration import ProbeSpec

# Names of the ready-made providers that are silent for good.
_given_way: set[str] = set()


def spec_of(probe: Probe[...]) -> ProbeSpec:
    """Return a probe as it was declared."""
    return ProbeSpec(probe.name, probe.doc, probe.shape.arguments, probe.stability)


def differences(first: Probe[...], second: Probe[...]) -> str:
    """Return in words what differs between two declarations of one name, and where each of them stands."""
    old, new = spec_of(first), spec_of(second)
    if first.arguments != second.arguments:
        what = [f"({', '.join(f'{name}: {kind}' for name, kind in probe.arguments)})" for probe in (first, second)]
    elif old.arguments != new.arguments:
        pair = next(pair for pair in zip(old.arguments, new.arguments, strict=True) if pair[0] != pair[1])
        field = next(field for field in pair[0]._fields if getattr(pair[0], field) != getattr(pair[1], field))
        what = [f"{argument.name} with {field} {getattr(argument, field)!r:.80}" for argument in pair]
    else:
        field = "doc" if old.doc != new.doc else "stability"
        what = [f"{field} {getattr(spec, field)[:80]!r}" for spec in (old, new)]
    places = ["{}:{}".format(*probe.place) if probe.place else "elsewhere" for probe in (first, second)]
    return f"{what[0]} at {places[0]}, {what[1]} at {places[1]}"


def has_given_way(name: str) -> bool:
    """Return whether the ready-made provider of this name is silent, because the program has some of its probes."""
    return name in _given_way


def give_way(name: str) -> str:
    """Silence the ready-made provider of this name if the program's own provider has a probe of the same name.

    Returns a line for the log, or an empty string.
    """
    ours, theirs = registry.ready_made_providers.get(name), registry.providers.get(name)
    if ours is None or theirs is None or name in _given_way:
        return ""
    common = {probe.name for probe in ours.probes} & {probe.name for probe in theirs.probes}
    if not common:
        return ""
    _given_way.add(name)
    for probe in ours.probes:
        native.silence(probe)
    why = f"the program has its own probes {name}:{min(common)}"
    report(f"{name}\0the ready-made probes\0{why}".encode("utf-8", "replace"))
    return f"{why}, so the ready-made probes of {name} are switched off"
