from typing import Any

from typing_extensions import Buffer

class Decoder:
    """Makes `event` (a named tuple class) of records with these fields: (kind, offset, size, room, names)."""

    def __new__(
        cls,
        event: type[tuple[Any, ...]],
        fields: tuple[tuple[str, int, int, int, dict[int, str] | None], ...],
        truncated: type[str],
        truncated_bytes: type[bytes],
    ) -> Decoder: ...

def decode(chunk: Buffer, end: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], /) -> list[Any]: ...
def columns(
    chunk: Buffer, end: int, decoders: tuple[Decoder, ...], probes: tuple[str, ...], groups: bytes, /
) -> list[tuple[Any, ...] | None]: ...
