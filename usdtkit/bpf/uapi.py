"""Numbers of linux/bpf.h and of BPF's instruction set, and an assembler for programs of a few instructions.

Used by `kernel` and `trace`, wherever a program is loaded, patched or written by hand. The numbers are spelled out
because a distribution's headers are often older than the kernel that runs. Imports nothing of ours.
"""

from __future__ import annotations

import struct

MAP_HASH, MAP_ARRAY, MAP_PERCPU_HASH, MAP_PERCPU_ARRAY, MAP_LRU_HASH, MAP_RINGBUF = 1, 2, 5, 6, 9, 27
MAP_ARRAY_OF_MAPS = 12  # each value is the descriptor of a map
# Flags of a map: entries are allocated one by one, as they come; the values of an array can be mapped.
NO_PREALLOC, MMAPABLE = 1, 1 << 10

PROG_TYPE_KPROBE, PROG_TYPE_PERF_EVENT, PROG_TYPE_RAW_TRACEPOINT, PROG_TYPE_TRACING = 2, 7, 17, 26
SLEEPABLE = 1 << 4  # a program's flag: it may wait for a page
ATTACH_TYPE_NONE, ATTACH_TYPE_ITERATOR, ATTACH_TYPE_UPROBE_MULTI, ATTACH_TYPE_UPROBE_SESSION = 0, 28, 48, 57

# Helper functions that a program can call.
MAP_LOOKUP, MAP_UPDATE, TAIL_CALL, SEND_SIGNAL, SEQ_WRITE = 1, 2, 12, 109, 127
COPY_FROM_USER, GET_FUNC_IP, GET_ATTACH_COOKIE, LOOP = 148, 173, 174, 181

# Opcodes, of 64-bit operations where the name does not say otherwise.
LOAD_IMMEDIATE, LOAD, LOAD32, STORE, STORE32, STORE_IMMEDIATE, ATOMIC_ADD = 0x18, 0x79, 0x61, 0x7B, 0x63, 0x7A, 0xDB
MOVE, MOVE32, MOVE_IMMEDIATE, MOVE32_IMMEDIATE, ADD_IMMEDIATE, SHIFT_RIGHT = 0xBF, 0xBC, 0xB7, 0xB4, 0x07, 0x77
JUMP, JUMP_IF_ZERO, JUMP_IF_UNEQUAL_0, JUMP_IF_UNEQUAL, JUMP_IF_SET, JUMP32_IF_ABOVE = (
    0x05,
    0x15,
    0x55,
    0x5D,
    0x45,
    0x26,
)
CALL, EXIT = 0x85, 0x95
# What the source register of LOAD_IMMEDIATE and of CALL says: the number is a map's descriptor, or a distance.
PSEUDO_MAP_FD, PSEUDO_CALL, PSEUDO_FUNC = 1, 1, 4
# What the upper half of a 64-bit constant says that stands for something that the loader knows: the parameter of the
# number in the lower half; the function of that number, which the kernel calls; 1 if stacks are walked by tables,
# else 0.
PARAMETER_MAGIC, CALLBACK_MAGIC, BY_TABLES_MAGIC = 0x75736474, 0x75736475, 0x75736476

INSTRUCTION = struct.Struct("<BBhi")
"""Opcode; destination register, and source register in the upper four bits; offset; immediate."""


def assemble(*instructions: tuple[int, int, int, int]) -> bytes:
    """The bytecode of instructions, each as INSTRUCTION has it."""
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions)
