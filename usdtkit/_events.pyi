from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

from typing_extensions import Buffer

class Event:
    """One event: an attribute for each of its fields, in the order of `_fields`; it also reads as a tuple of them."""

    _fields: ClassVar[tuple[str, ...]]
    def __getattr__(self, name: str, /) -> Any: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __lt__(self, other: Event | tuple[Any, ...], /) -> bool: ...
    def _asdict(self) -> dict[str, Any]: ...

@final
class Decoder:
    """Makes events of records with these fields: (kind, offset, size, room, names of an enum)."""

    def __new__(
        cls,
        names: tuple[str, ...],
        fields: tuple[tuple[str, int, int, int, dict[int, str] | None], ...],
        truncated: type[str],
        truncated_bytes: type[bytes],
        stack: Callable[[int], Any] | None,
        /,
    ) -> Decoder: ...

def make(fields: tuple[str, ...], values: tuple[Any, ...], /) -> Event: ...
def decode(
    data: Buffer, enough: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], /
) -> tuple[list[Event], int]: ...
def columns(
    data: Buffer, enough: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], groups: bytes, /
) -> tuple[list[tuple[Any, ...] | None], int]: ...
