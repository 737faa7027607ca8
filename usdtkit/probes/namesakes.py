"""Two declarations of one name: what differs between them, and which of two providers gives way.

In: probes and providers of `provider`. Out: the text of an error, or ready-made probes that are silent because the
program has some of the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from usdtkit.probes.declaration import ProbeSpec

if TYPE_CHECKING:
    from usdtkit.probes.provider import Probe, Provider

# Those of `usdtkit.instrument`, which the program that is instrumented need not know of; and which of them are silent
# for good.
ready_made_providers: dict[str, Provider] = {}
_given_way: set[str] = set()


def spec_of(probe: Probe[...]) -> ProbeSpec:
    """What was declared of a probe."""
    return ProbeSpec(probe.name, probe.doc, probe.shape.arguments, probe.stability)


def differences(first: Probe[...], second: Probe[...]) -> str:
    """What two declarations of one name do not have in common, and where they stand."""
    one, other = spec_of(first), spec_of(second)
    if first.arguments != second.arguments:
        what = [f"({', '.join(f'{name}: {kind}' for name, kind in each.arguments)})" for each in (first, second)]
    elif one.arguments != other.arguments:
        pair = next(pair for pair in zip(one.arguments, other.arguments, strict=True) if pair[0] != pair[1])
        field = next(field for field in pair[0]._fields if getattr(pair[0], field) != getattr(pair[1], field))
        what = [f"{each.name} with {field} {getattr(each, field)!r:.80}" for each in pair]
    else:
        field = "doc" if one.doc != other.doc else "stability"
        what = [f"{field} {getattr(each, field)[:80]!r}" for each in (one, other)]
    places = ["{}:{}".format(*each.place) if each.place else "elsewhere" for each in (first, second)]
    return f"{what[0]} at {places[0]}, {what[1]} at {places[1]}"


def has_given_way(name: str) -> bool:
    """Whether the ready-made provider of this name is silent, because the program has probes of the same names."""
    return name in _given_way


def is_silent_for_good(provider: Provider) -> bool:
    """Whether it is a ready-made provider that has given way."""
    return provider.name in _given_way and ready_made_providers.get(provider.name) is provider


def give_way(name: str, theirs: Provider | None, silence: Callable[[Probe[...]], object]) -> str:
    """Silence the ready-made provider of this name, if the program's own, `theirs`, has a probe that it has too.

    Returns what the log has to be told of it, if anything.
    """
    ours = ready_made_providers.get(name)
    if ours is None or theirs is None or name in _given_way:
        return ""
    both = {probe.name for probe in ours.probes} & {probe.name for probe in theirs.probes}
    if not both:
        return ""
    _given_way.add(name)
    for probe in ours.probes:
        silence(probe)
    return f"the program has probes of its own of the name {name}:{min(both)}: the ready-made ones of {name} are off"
