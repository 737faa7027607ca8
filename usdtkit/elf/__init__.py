"""ELF bytes → `usdtkit.model`: probes from notes, functions from symbols. For any architecture, without privileges.

    from usdtkit.elf import Image, functions, read_probes

    with Image.open("/usr/lib/x86_64-linux-gnu/libstdc++.so.6") as image:
        for probe in read_probes(image):
            print(probe.spec, [site.arguments_text for site in probe.sites])
        print(functions(image, "std::condition_variable::wait"))

`image` opens a file and finds addresses in it. `notes` reads its USDT probes, with `arguments` for their operands and
`metadata` for our own note. `symbols` finds functions, with `tables`, `matching`, `debugfiles` (for stripped files) and
`demangle`; `lookup` finds the function at an address. `exits` finds the instructions by which a function leaves, with
`decoder`, `flows`, `callframes` and `callees`. `sites` says what a probe costs and where none may be put, `unwinding`
where the kernel's return probes do harm, `golang` what is particular about Go, whose own table of functions and lines
`pclntab` reads; `gomodule` and `godwarf` find members of its structures. `unpacking` gives debug information that is
packed. `relocations` finds what the loader changes. `walk` finds the ELF files of a directory, `writer` writes small
ones, and `constants` has the numbers of the format.
Files are treated as hostile: bad bytes raise `usdtkit.errors.ElfError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usdtkit.elf.image import Image as Image
    from usdtkit.elf.notes import read_probes as read_probes
    from usdtkit.elf.symbols import functions as functions

__all__ = ["Image", "functions", "read_probes"]

_HOMES = {"Image": "image", "functions": "symbols", "read_probes": "notes"}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the application's side needs only the writer."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
