"""For the tests of an application: which probes fired in this process, and with which values. Needs no root.

    from usdtkit.testing import expect_probes

    def test_an_order():
        with expect_probes("shop:order__start", {"shop:order__done": 1}) as fired:
            handle(order)
        assert fired.of("shop:order__start") == [{"order_id": 42, "customer": "ada"}]

pytest has a fixture for the same, without an import, because usdtkit is a plugin of it:

    def test_an_order(usdtkit_probes):
        handle(order)
        assert usdtkit_probes.of("shop:order__done") == [{"order_id": 42, "status": 0}]

Input: the probes of `usdtkit.probes`, which convert and check their values as they do for a tracer; and those of the
integrations of `usdtkit.instrument` that are installed (not `python`, whose probes fire without Python). Output: plain
data. Neither the kernel nor a tracer takes part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ContextDecorator, contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from usdtkit.probes import provider
from usdtkit.probes.provider import Probe
from usdtkit.probes.registry import all_providers

if TYPE_CHECKING:
    from types import TracebackType

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
        """The arguments of each call of the probes that match `pattern`, which is PROVIDER:PROBE; globs are allowed.

        Raises AssertionError if none has fired and none is declared that matches.
        """
        __tracebackhide__ = True
        arguments = [arguments for probe, arguments in self if fnmatchcase(probe, pattern)]
        if not arguments and (problem := _unknown(pattern)):
            raise AssertionError(problem)
        return arguments


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


# A class, because a traceback would show the frames of contextlib above a function's.
class expect_probes(ContextDecorator):
    """Record as `record_probes` does, and raise AssertionError at the end if a probe did not fire as expected.

    A name (PROVIDER:PROBE, globs are allowed) expects one call or more. A mapping {name: count} expects exactly `count`
    calls. A name that no probe has is an error even where 0 calls are expected.
    """

    def __init__(self, *expected: str | Mapping[str, int]) -> None:
        self._expected = expected

    def __enter__(self) -> Recording:
        self._recorder = record_probes()
        self._recording = self._recorder.__enter__()
        return self._recording

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._recorder.__exit__(None, None, None)
        problems = [] if kind else list(self._problems())
        if problems:
            counts = Counter(fired.probe for fired in self._recording)
            seen = ", ".join(f"{probe} {count}" for probe, count in counts.items()) or "nothing"
            raise AssertionError(f"{'; '.join(problems)} (fired: {seen})")

    def _problems(self) -> Iterator[str]:
        for expectation in self._expected:
            pairs = expectation.items() if isinstance(expectation, Mapping) else [(expectation, None)]
            for pattern, count in pairs:
                number = sum(fnmatchcase(fired.probe, pattern) for fired in self._recording)
                if not number and (problem := _unknown(pattern)):
                    yield problem
                elif count is None and not number:
                    yield f"{pattern} did not fire"
                elif count is not None and number != count:
                    yield f"{pattern} fired {number} times, not {count}"


def _unknown(pattern: str) -> str:
    """Say that no probe of this process has this name, and which have similar ones; "" if one has it."""
    names = [f"{probe.provider}:{probe.name}" for each in all_providers() for probe in each.probes]
    if any(fnmatchcase(name, pattern) for name in names):
        return ""
    from difflib import get_close_matches

    near = get_close_matches(pattern, names, 3, 0.6)
    return f"there is no such probe: {pattern}" + (f"; near: {', '.join(near)}" if near else "")


def _record(probe: Probe[...], values: tuple[Any, ...]) -> None:
    arguments = {}
    for argument, value in zip(probe.shape.arguments, values, strict=True):
        if argument.type in ("enum", "enum?"):
            value = next((name for name, number in argument.names if number == value), value)
        elif argument.type == "json":
            value = _parse(value)
        arguments[argument.name] = value
    for recording in _recordings:
        recording.append(Fired(f"{probe.provider}:{probe.name}", dict(arguments)))


def _parse(text: str) -> Any:
    content = json.loads(text)
    return text if isinstance(content, dict) and "$truncated" in content else content
