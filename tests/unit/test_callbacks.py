"""Functions that the kernel calls: where they are put behind a program, and how bytecode is joined."""

import struct

import pytest

from usdtkit.bpf.bytecode import Bytecode, MapDescription, joined
from usdtkit.bpf.uapi import (
    CALL,
    CALLBACK_MAGIC,
    EXIT,
    INSTRUCTION,
    LOAD_IMMEDIATE,
    MAP_ARRAY,
    MAP_HASH,
    MOVE_IMMEDIATE,
    PSEUDO_CALL,
    PSEUDO_FUNC,
    PSEUDO_MAP_FD,
    assemble,
)
from usdtkit.kernel.callbacks import with_callbacks

RETURN = ((MOVE_IMMEDIATE, 0, 0, 0), (EXIT, 0, 0, 0))


def naming(number):
    return ((LOAD_IMMEDIATE, 2, 0, number), (0, 0, 0, CALLBACK_MAGIC))


def targets(code):
    """By the place of each name of a function, where it leads."""
    return {
        at: at + 1 + immediate
        for at, (opcode, registers, _, immediate) in enumerate(INSTRUCTION.iter_unpack(code))
        if opcode == LOAD_IMMEDIATE and registers >> 4 == PSEUDO_FUNC
    }


def test_a_program_that_names_none_is_left_as_it_is():
    code = assemble(*RETURN)
    assert with_callbacks(code, {}) == (code, [])


def test_each_function_is_there_once_and_is_found():
    code = assemble(*naming(1), *naming(0), *naming(1), *RETURN)
    whole, firsts = with_callbacks(code, {0: assemble(*RETURN), 1: assemble(*RETURN, *RETURN)})
    assert firsts == [0, 8, 12] and len(whole) // 8 == 14
    assert targets(whole) == {0: 8, 2: 12, 4: 8}
    assert all(struct.unpack_from("<I", whole, 8 * at + 12) == (0,) for at in (0, 2, 4))


def test_a_function_may_name_another():
    whole, firsts = with_callbacks(
        assemble(*naming(0), *RETURN), {0: assemble(*naming(1), *RETURN), 1: assemble(*RETURN)}
    )
    assert firsts == [0, 4, 8]
    assert targets(whole) == {0: 4, 4: 8}


def test_functions_that_are_called_are_told_too():
    code = assemble((CALL, PSEUDO_CALL << 4, 0, 4), *naming(0), *RETURN, *RETURN)
    assert with_callbacks(code, {0: assemble(*RETURN)})[1] == [0, 5, 7]


def test_a_number_that_no_function_has():
    with pytest.raises(KeyError):
        with_callbacks(assemble(*naming(7), *RETURN), {})


def test_joined_programs_share_the_maps_of_one_name():
    def use(number):
        return assemble((LOAD_IMMEDIATE, PSEUDO_MAP_FD << 4 | 1, 0, number), (0, 0, 0, 0), *RETURN)

    small, large = (MapDescription("shared", MAP_HASH, 4, size, 1, 0) for size in (8, 4096))
    other, more = (MapDescription(name, MAP_ARRAY, 4, 8, 1, 0) for name in ("other", "more"))
    first = Bytecode((small, other), {"one": use(0) + use(1)}, "")
    second = Bytecode((more, large), {"two": use(0) + use(1)}, "")
    both = joined(first, second)
    named = [
        both.maps[immediate].name
        for name in ("one", "two")
        for opcode, _, _, immediate in INSTRUCTION.iter_unpack(both.programs[name])
        if opcode == LOAD_IMMEDIATE
    ]
    assert named == ["shared", "other", "more", "shared"]
    assert both.maps[0] == large
