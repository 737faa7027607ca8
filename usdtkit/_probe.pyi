"""The compiled module behind `usdtkit.Probe`; its source is native/probe.c."""

from collections.abc import Callable, Mapping
from typing import final

@final
class Probe:
    """A typed probe; calling it fires it. Made by `Provider.probe`."""

    def __new__(
        cls,
        provider: str,
        name: str,
        doc: str,
        arguments: tuple[tuple[str, str], ...],
        loader: Callable[[], object],
    ) -> Probe:
        """`loader` is called by the first use of the probe, and makes it visible by `load` or `silence`."""
    def __call__(self, *values: object, **named: object) -> None:
        """Fire: while nobody traces the probe nothing is looked at, the values included.

        While somebody does: TypeError for a wrong number or type of values, OverflowError for one out of range.
        """
    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to this probe now."""
    @property
    def provider(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def doc(self) -> str: ...
    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(name, type) of each argument, in order."""
    @property
    def path(self) -> str | None:
        """The file that carries the probe; None before it is loaded."""

def load(path: str, probes: Mapping[str, Probe], pristine: int) -> None:
    """Map the library `path` for good and bind each probe, unless it is bound already, to the symbol it stands under.

    `pristine` is the first byte of a site as the file has it. OSError when the library or a symbol cannot be had; then
    no probe is bound.
    """

def silence(probe: Probe) -> None:
    """Bind a probe that is not bound to nothing: it is never enabled."""
