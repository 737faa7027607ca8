"""Where the Zend engine, which runs PHP, has what a walk over PHP's frames reads, by version.

`usdtkit.unwind.phps` chooses by these. The offsets are those of PHP's own headers, which stay the same within a minor
version, of builds for 64-bit machines without thread safety. All are in bytes.
"""

from __future__ import annotations

FILES = {
    **{(7, 3): 128, (7, 4): 136},
    **{(8, 0): 144, (8, 1): 144, (8, 2): 152, (8, 3): 144, (8, 4): 168},
}
"""In a function of PHP: a pointer to the name of its file. All else is the same in these versions."""

CURRENT = 488
"""In executor_globals: a pointer to the innermost frame."""
FRAME_SIZE = 56
"""How many bytes of a frame are read."""
INSTRUCTION, FUNCTION, CALL, PREVIOUS = 0, 24, 40, 48
"""In a frame: pointers to the instruction and the function, 4 bytes of flags, and a pointer to the caller's frame."""
IS_TOP = 1 << 17
"""A flag of a frame: the engine's function returns when it ends."""
TYPE, NAME, CLASS = 0, 8, 16
"""In a function: a byte, and pointers to its name and to its class, which are 0 if it has none."""
INTERNAL, USER, EVALUATED = 1, 2, 4
"""The types of functions: in C, in a file, and in a text that was evaluated."""
LINE = 24
"""In an instruction: a u32."""
CLASS_NAME = 8
LENGTH, CHARACTERS = 16, 24
"""In a string: its size, and its bytes."""
