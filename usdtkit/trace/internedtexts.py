"""The texts that a program has sent once, and that its keys name by number → the texts.

Input: the records in the ring buffer of bpf/interned.c. Output: texts in place of their numbers, in the keys that
`aggregations` decodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from usdtkit.bpf.interning import NO_ROOM
from usdtkit.bpf.layout import Layout

if TYPE_CHECKING:
    from usdtkit.kernel.maps import Map
    from usdtkit.kernel.ring import RingBuffer

OTHER_TEXTS = "(all others)"
"""Stands for all texts that came while too many others waited to be read."""
KEPT = 65_536  # texts, beside those that tables name


class InternedTexts:
    """All interned texts of a session, by their numbers."""

    def __init__(self, layouts: Sequence[Layout], ring: RingBuffer, sent: Map) -> None:
        """`layouts` are those of the records, by kind. Takes over `ring`, which `close` frees. `sent` has the numbers
        that the program does not send again."""
        self._layouts, self._ring, self._sent = layouts, ring, sent
        self._texts: dict[int, str | bytes | None] = {NO_ROOM: OTHER_TEXTS}
        self._tables: list[tuple[Map, Layout, list[int]]] = []
        self._most = KEPT

    @property
    def fd(self) -> int:
        """The descriptor that is readable when new texts wait."""
        return self._ring.fd

    def collect(self) -> None:
        """Read new texts from the ring buffer."""
        for payload in self._ring.payloads():
            id, kind = (int.from_bytes(payload[at : at + 8], "little") for at in (0, 8))
            self._texts.setdefault(id, self._layouts[kind].decode(payload)[-1])
        if len(self._texts) > self._most:
            self._forget()

    def get(self, id: int) -> str | bytes | None:
        """The text with this number. None for 0, which is the number of texts that could not be read."""
        if id and id not in self._texts:
            self.collect()
        return self._texts.get(id)

    def keep_for(self, table: Map, keys: Layout) -> None:
        """Keep the texts that the keys of this table name, as long as it has these keys."""
        if at := [index for index, field in enumerate(keys.fields) if field.kind == "interned"]:
            self._tables.append((table, keys, at))

    def close(self) -> None:
        """Free the ring buffer."""
        self._ring.close()

    def _forget(self) -> None:
        """Keep the texts that the program would not send again, those that tables name, and the newest, which tables
        may be about to name."""
        kept = {int.from_bytes(key, "little") for key, _ in self._sent.items()}
        kept |= {NO_ROOM, *[*self._texts][-KEPT // 2 :]}
        for table, keys, at in self._tables:
            for key, _ in table.items():
                numbers = keys.decode(key)
                kept.update(numbers[index] for index in at)
        self._texts = {id: text for id, text in self._texts.items() if id in kept}
        self._most = max(KEPT, 2 * len(self._texts))
