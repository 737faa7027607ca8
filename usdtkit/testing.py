"""For the tests of an application: which probes fired in this process, and with which values. Needs no root.

    from usdtkit.testing import expect_probes

    def test_an_order():
        with expect_probes("shop:order__start", {"shop:order__done": 1}) as fired:
            handle(order)
        assert fired.of("shop:order__start") == [{"order_id": 42, "customer": "ada"}]

Input: the probes of `usdtkit.probes`, which convert and check their values as they do for a tracer. Output: plain data.
Neither the kernel nor a tracer takes part.
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
    """One call of a probe: PROVIDER:PROBE, and the arguments by name, as a tracer reads them.

    The value of an enum is its name. The value of a json argument is the object, or its text where that was truncated.
    """

    probe: str
    arguments: dict[str, Any]


class Recording(list[Fired]):
    """All calls of probes, in their order."""

    def of(self, pattern: str) -> list[dict[str, Any]]:
        """The arguments of each call of the probes that match `pattern`, which is PROVIDER:PROBE; globs are allowed."""
        return [arguments for probe, arguments in self if fnmatchcase(probe, pattern)]


_recordings: list[Recording] = []


@contextmanager
def record_probes() -> Iterator[Recording]:
    """Record every call of every probe in this process, in all threads, also of probes that are declared meanwhile."""
    recording = Recording()
    _recordings.append(recording)
    provider.record(_record)
    try:
        yield recording
    finally:
        # By identity, because two recordings with the same content are equal.
        _recordings[:] = [other for other in _recordings if other is not recording]
        if not _recordings:
            provider.record(None)


@contextmanager
def expect_probes(*expected: str | Mapping[str, int]) -> Iterator[Recording]:
    """Record as `record_probes` does, and raise AssertionError at the end if a probe did not fire as expected.

    A name (PROVIDER:PROBE, globs are allowed) expects one call or more. A mapping {name: count} expects exactly `count`
    calls.
    """
    with record_probes() as recording:
        yield recording
    missing = []
    for expectation in expected:
        pairs = expectation.items() if isinstance(expectation, Mapping) else [(expectation, None)]
        for pattern, count in pairs:
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
            value = next((name for name, number in argument.names if number == value), value)
        elif argument.type == "json":
            value = _parse(value)
        arguments[argument.name] = value
    for recording in _recordings:
        recording.append(Fired(f"{probe.provider}:{probe.name}", dict(arguments)))


def _parse(text: str) -> Any:
    content = json.loads(text)
    return text if isinstance(content, dict) and "$truncated" in content else content
