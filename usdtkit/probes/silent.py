"""Replaces the compiled `usdtkit._probe` if it cannot be built: the same names, and probes that do nothing.

`compiled` imports it. The first load warns that probes do nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import GenericAlias
from typing import Any

from usdtkit.probes.declaration import Shape

WHY = "usdtkit's compiled module is not built for this system and interpreter"


class Probe:
    """A probe that is never enabled."""

    @classmethod
    def __class_getitem__(cls, parameters: object) -> GenericAlias:
        return GenericAlias(cls, parameters)

    def __init__(
        self,
        provider: str,
        name: str,
        doc: str,
        stability: str,
        shape: Shape,
        loader: Callable[[], object],
        drops: int = 0,
        /,
    ) -> None:
        self.provider, self.name, self.doc, self.stability, self.shape = provider, name, doc, stability, shape
        self.arguments = shape.pairs
        self.enabled, self.fired, self.dropped, self.pristine = False, 0, 0, 0
        self.path, self.place = None, None
        self._loader: Callable[[], object] | None = loader

    def __call__(self, *values: object, **named: object) -> None:
        if self._loader is not None:  # the first use warns that nothing can be traced
            self._loader()

    def lazy(self, function: Callable[[], tuple[object, ...]], /) -> None:
        """Never calls the function."""
        self()

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}: {kind}" for name, kind in self.arguments)
        return f"<Probe {self.provider}:{self.name}({arguments})>"


class Declarer:
    """Always calls Provider.probe, because there is no compiled way to declare a probe."""

    quick = False

    def __init__(self, general: Callable[..., Probe], *_: object) -> None:
        self.__wrapped__ = general

    def __call__(self, *values: Any, **named: Any) -> Probe:
        return self.__wrapped__(*values, **named)


class LiveSpan:
    """A stretch of work that nobody traces, for `with` or `async with`."""

    def __enter__(self) -> LiveSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def __aenter__(self) -> LiveSpan:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def pause(self) -> None:
        """Do nothing: no other span is ever within this one."""

    resume = pause


UNTRACED = LiveSpan()


class Span:
    """A span that is never enabled."""

    enabled = False

    def __init__(self, name: str, start: Probe, done: Probe) -> None:
        self.name, self.start, self.done = name, start, done

    def __call__(self, /, *values: object, **named: object) -> LiveSpan:
        self.start()
        return UNTRACED

    def __repr__(self) -> str:
        return f"<Span {self.start.provider}:{self.name}>"

    @classmethod
    def __class_getitem__(cls, parameters: object) -> GenericAlias:
        return GenericAlias(cls, parameters)


class SpanByName:
    """Always calls Provider.span, because there is no compiled way to find a span."""

    def __init__(self, general: Callable[..., LiveSpan], spans: object) -> None:
        self.__wrapped__ = general

    def __call__(self, /, *values: Any, **named: Any) -> LiveSpan:
        return self.__wrapped__(*values, **named)


def Traced(function: Any, span: Span, values: object, wrapper: object) -> Any:
    """Return the function itself, because no call of it is ever traced."""
    return function


def on_drop(report_drop: object, package_path: str) -> None:
    """Do nothing: no call is ever fired, so none is dropped."""


def span_number() -> int:
    """Return 0: no span is ever traced, so numbers are not used."""
    return 0


def on_span(foreign: object) -> None:
    """Do nothing: no span ever has a parent."""


def columns(probes: tuple[Probe, ...]) -> tuple[tuple[Any, ...], ...]:
    """Return names, docs, stabilities and canonical arguments of the probes, as `declaration.canonical` takes them."""
    rows = [(probe.name, probe.doc, probe.stability, probe.shape.text) for probe in probes]
    return tuple(zip(*rows, strict=True))


def load(path: str, probes: object, pristine: int, offset: int, stride: int, renewed: int = 0) -> None:
    """Raise OSError: nothing can be loaded."""
    raise OSError(WHY)


def silence(probe: Any) -> None:
    """Make calls do nothing: not even the first one loads the probe."""
    probe._loader = None


def unsilence(probe: object) -> None:
    """Do nothing: probes are always silent."""


def set_recorder(probe: object, recorder: object) -> None:
    """Raise OSError unless this ends a recording: nothing can be recorded."""
    if recorder is not None:
        raise OSError(WHY)


def report(text: bytes) -> bool:
    """Return False: no other process looks."""
    return False


def tell_hooks(probe: object, are_set: bool, /) -> None:
    """Do nothing: no other process looks."""


def counters(probe: object) -> int:
    """Raise OSError: nothing is counted."""
    raise OSError(WHY)


def optimises() -> bool:
    """Return False: no kernel is asked."""
    return False
