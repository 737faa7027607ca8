"""The compiled module behind `usdtkit.trace.events`. Its source is native/events.c and native/events_*.c."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final, overload

from typing_extensions import Buffer

class Event:
    """One event: it has an attribute for each field, in the order of `_fields`, and also reads as a tuple of them."""

    _fields: ClassVar[tuple[str, ...]]
    def __getattr__(self, name: str, /) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __lt__(self, other: Event | tuple[Any, ...], /) -> bool: ...
    def _asdict(self) -> dict[str, Any]: ...

@final
class Texts:
    """The texts of a column: a sequence of str or bytes, which are made when they are asked for.

    `data` has the bytes of all texts, one behind the other. `offsets` (8-byte items) says where each text begins, and
    in one more item where the last one ends. `marks` has a byte for each text: 1 if cut, 2 if it could not be read.
    """

    data: bytes
    marks: bytes
    @property
    def offsets(self) -> memoryview:
        """Where each text begins in `data`, and where the last one ends: 8-byte items."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int, /) -> str | bytes | None: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[str | bytes | None]: ...
    def __iter__(self) -> Iterator[str | bytes | None]: ...

@final
class Decoder:
    """Makes events of records with these fields: (kind, offset, size, capacity, names).

    `names` are those of an enum's numbers, or what makes an object of the number of a stack.
    """

    def __new__(
        cls,
        names: tuple[str, ...],
        fields: tuple[tuple[str, int, int, int, dict[int, str] | Callable[[int], Any] | None], ...],
        truncated: type[str],
        truncated_bytes: type[bytes],
        /,
    ) -> Decoder: ...

def make(fields: tuple[str, ...], values: tuple[Any, ...], /) -> Event: ...
def decode(
    data: Buffer, enough: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], /
) -> tuple[list[Event], int]: ...
def columns(
    data: Buffer, enough: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], groups: bytes, /
) -> tuple[list[tuple[Any, ...] | None], int]: ...
