"""Several sources as one.

Input: the sources or pairs of a session, such as the two pairs that are the queries of one server. Output: the same
actions as a `Source` has, each taken at the hits of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from usdtkit.bpf import expressions as ex
from usdtkit.trace.sources import Source
from usdtkit.trace.summarising import Summarising

AnySource = TypeVar("AnySource", bound=Source, covariant=True)


class Sources(Summarising, Generic[AnySource]):
    """Sources or pairs of one session, possibly none, that are used as one: iterable, with a length.

    Names are looked up at each member: `latency`, arguments, and what each pair keeps. A table adds up over all
    members; events of all members have the same fields.
    """

    def __init__(self, *sources: AnySource) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[AnySource]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def _members(self) -> Sequence[Source]:
        return self._sources

    def where(self, condition: ex.Expression) -> Sources[AnySource]:
        """The same sources, with only the hits for which `condition` is true."""
        return Sources(*(source.where(condition) for source in self._sources))

    def derive(self, *names: str, **values: ex.Operand) -> Sources[AnySource]:
        """The same sources, in which `values` can be asked for by their names, as `Source.derive` does."""
        return Sources(*(source.derive(*names, **values) for source in self._sources))

    def emit(
        self, *names: str, into: type | ex.Expression | None = None, **fields: ex.Expression
    ) -> Sources[AnySource]:
        """Send an event for each hit of each source, as `Source.emit` does."""
        for source in self._sources:
            source.emit(*names, into=into, **fields)
        return self
