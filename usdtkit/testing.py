"""For the tests of an application: which probes fired in this process, with what; no kernel, no tracer, no root.

    from usdtkit.testing import expect_probes

    def test_an_order():
        with expect_probes("shop:order__start", {"shop:order__done": 1}) as fired:
            handle(order)
        assert fired.of("shop:order__start") == [{"order_id": 42, "customer": "ada"}]

Input: the probes of `usdtkit.probes`, which convert and check their values as they do for a tracer. Output: plain data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from usdtkit.probes import provider
from usdtkit.probes.provider import Probe

__all__ = ["Fired", "Recording", "expect_probes", "record_probes"]


class Fired(NamedTuple):
    """One fire: PROVIDER:PROBE, and the arguments by name, as a tracer reads them.

    An enum comes as its name, a json as the object, or as its text where it was cut.
    """

    probe: str
    arguments: dict[str, Any]


class Recording(list[Fired]):
    """All that fired, in order."""

    def of(self, pattern: str) -> list[dict[str, Any]]:
        """The arguments of each fire of the probes that match: PROVIDER:PROBE, globs allowed."""
        return [arguments for probe, arguments in self if fnmatchcase(probe, pattern)]


_recordings: list[Recording] = []


@contextmanager
def record_probes() -> Iterator[Recording]:
    """Record every fire of every probe of this process, in all threads, also of probes declared meanwhile."""
    recording = Recording()
    _recordings.append(recording)
    provider.record(_record)
    try:
        yield recording
    finally:
        # By identity: recordings that hold the same are equal.
        _recordings[:] = [each for each in _recordings if each is not recording]
        if not _recordings:
            provider.record(None)


@contextmanager
def expect_probes(*expected: str | Mapping[str, int]) -> Iterator[Recording]:
    """Record as `record_probes`, and raise AssertionError at the end where not all that was expected fired.

    A name (PROVIDER:PROBE, globs allowed) expects one fire or more, a mapping {name: count} exactly so many.
    """
    with record_probes() as recording:
        yield recording
    missing = []
    for each in expected:
        for pattern, count in each.items() if isinstance(each, Mapping) else [(each, None)]:
            number = len(recording.of(pattern))
            if count is None and not number:
                missing.append(f"{pattern} did not fire")
            elif count is not None and number != count:
                missing.append(f"{pattern} fired {number} times, not {count}")
    if missing:
        counts = Counter(fired.probe for fired in recording)
        seen = ", ".join(f"{probe} {count}" for probe, count in counts.items()) or "nothing"
        raise AssertionError(f"{'; '.join(missing)} (fired: {seen})")


def _record(probe: Probe[...], values: tuple[Any, ...]) -> None:
    arguments = {}
    for argument, value in zip(probe.shape.arguments, values, strict=True):
        if argument.type == "enum":
            value = next((each for each, number in argument.names if number == value), value)
        elif argument.type == "json":
            value = _parse(value)
        arguments[argument.name] = value
    for recording in _recordings:
        recording.append(Fired(f"{probe.provider}:{probe.name}", dict(arguments)))


def _parse(text: str) -> Any:
    content = json.loads(text)
    return text if isinstance(content, dict) and "$truncated" in content else content
