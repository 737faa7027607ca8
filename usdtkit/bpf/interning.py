"""Texts that a program sends once, and that its keys name by number → C, and how to read what is sent.

Input: scanners, and from `render` where texts lie. Output: C for `render`, the entries of the map SCANNERS, and the
layouts of the records of the ring buffer TEXT_RECORDS. interned.c has the functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.scanner import Scanner
from usdtkit.bpf.texts import TextPlace

TEXT_RECORDS = "text_records"  # the ring buffer of interned.c
TEXTS_SENT = "texts_sent"
SCANNERS = "scanners"
NO_ROOM = 2
HEADER = (("id", "u64"), ("kind", "u64"))


class Interning:
    """The interned texts of a whole program."""

    def __init__(self) -> None:
        self.scanners: list[bytes] = []
        """The entries of the map SCANNERS."""
        self.records: list[Layout] = []
        """The layouts of the records, by kind: a header and a text."""
        self.needs_scratch = False
        # The start and the multiplier of the hash, which is odd. Nobody who chooses texts can know them.
        start, multiplier = (int.from_bytes(os.urandom(8), "little") for _ in range(2))
        self._secrets = start, multiplier | 1

    def _number(self, scanner: Scanner) -> int:
        """The number of a scanner in its map."""
        if scanner.packed not in self.scanners:
            self.scanners.append(scanner.packed)
        return self.scanners.index(scanner.packed)

    def record(self, field: Field) -> tuple[int, Layout]:
        """The kind and the layout of the records that send texts of this kind and size."""
        for kind, layout in enumerate(self.records):
            if (layout.fields[0].kind, layout.fields[0].size) == (field.kind, field.size):
                return kind, layout
        self.records.append(Layout([field], HEADER))
        return len(self.records) - 1, self.records[-1]

    def render(
        self,
        kind: int,
        scanner: Scanner,
        place: TextPlace,
        copy: Sequence[str],
        parameter: Callable[[int], str],
        unreadable: str,
    ) -> str:
        """The C of the number of the text at `place`. `copy` are statements that write it to the record `t`.

        The number of what is sent is that of the copy: the process may have changed its text meanwhile.
        """
        opening, length = place.opening, place.length
        if place.kind.startswith("USER"):  # all of it is read once, to find its length and to bring in its pages
            self.needs_scratch = True
            read = (
                f"read_string(scratch->data, {place.size + 2}, {place.address})"
                if place.kind == "USER_STRING"
                else f"read_buffer(scratch->data, {place.size}, {place.address}, {length})"
            )
            opening += "u32 none = 0; struct scratch *scratch = scratches.lookup(&none); s64 length = NO_TEXT;"
            opening += f"if (scratch) length = counted({read}, {unreadable});"
            length = "length"
        is_kernel, nul_ends = int(place.kind.startswith("KERNEL")), int(self.records[kind].fields[0].kind == "str")
        hashed = f"text_hash({kind}, {self._number(scanner)}"
        secrets = f"{', '.join(map(parameter, self._secrets))}, {unreadable}"
        return " ".join(
            [
                f"({{ {opening} u64 sent = 1, text =",
                f"{hashed}, {is_kernel}, {nul_ends}, (u64)({place.address}), {length}, {place.size}, {secrets});",
                f"if (text && !{TEXTS_SENT}.lookup(&text)) {{",
                f"struct text_{kind} *t = {TEXT_RECORDS}.ringbuf_reserve(sizeof(struct text_{kind}));",
                f"if (!t) text = NO_ROOM; else {{ t->kind = {kind};",
                *copy,
                f"text = {hashed}, 1, {nul_ends}, (u64)(&t->f0), t->f0_length, {place.size}, {secrets}); t->id = text;",
                # Another thread may have been faster, and then this copy is not needed.
                f"if (!text || {TEXTS_SENT}.insert(&text, &sent)) {TEXT_RECORDS}.ringbuf_discard(t, 0);",
                f"else {TEXT_RECORDS}.ringbuf_submit(t, 0); }} }} text; }})",
            ]
        )

    def declarations(self) -> list[str]:
        """The structs of the records."""
        return [layout.c_struct(f"text_{kind}") for kind, layout in enumerate(self.records)]
