"""An open ELF file with CPython or PHP in it → where the code of its evaluation function is.

Input `usdtkit.elf.image.Image`; used by `usdtkit.unwind.runtimes`. Each call of that function in a native
stack stands for the functions of the language that it runs. Compilers split off its unlikely parts, and other functions
lie between. If the file was stripped of their symbols, such a part is known by jumps of the function that lead to it,
and by its call frame information, which begins with the stack that the function has set up.
"""

from __future__ import annotations

from usdtkit.elf.callframes import CallFrames
from usdtkit.elf.decoder import Decoder
from usdtkit.elf.flows import BRANCH, JUMP
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import Addresses, cold_parts
from usdtkit.unwind.runtimes import Ranges


def evaluation_ranges(image: Image, name: str) -> Ranges:
    """Return the virtual addresses of the evaluation function, which has this name, and of its parts; () if it cannot
    be found. ElfError."""
    addresses, frames = Addresses(image), CallFrames(image)
    start = addresses.find(name)
    main = None if start is None else frames.covering(start)
    if start is None or main is None:
        return ()
    ranges = {(start, main.end)}
    for part_name in cold_parts(image, name):
        place = addresses.find(part_name)
        part = None if place is None else frames.covering(place)
        if part is not None:
            ranges.add((part.start, part.end))
    decoder = Decoder(image)
    if len(ranges) == 1 and decoder.is_supported:
        targets = {flow.target for flow in decoder.decode(start, main.end - start).flows if flow.kind in (JUMP, BRANCH)}
        for target in targets:
            part = None if start <= target < main.end else frames.covering(target)
            if part is not None and frames.rule(part.start) != frames.at_entry:
                ranges.add((part.start, part.end))
    return tuple(sorted(ranges))
