"""Call frame information of any functions → the rows that they are made of; any bytes → a table or an ElfError."""

import struct

import cfi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usdtkit.elf import constants, writer
from usdtkit.elf.image import Image
from usdtkit.elf.writer import Section, Segment
from usdtkit.errors import ElfError
from usdtkit.unwind import tables
from usdtkit.unwind.tables import read_table

CODE = 0x1800
GAP = 32
RSP, RBP, RETURN_ADDRESS = 7, 6, 16
FRAMES = {RSP: tables.SP, RBP: tables.FP, 0: tables.RAX, 10: tables.R10, 11: tables.R11, 3: tables.OTHER}
ALL_FRAMES = range(13)


def frames_file(path, frames, debug=b""):
    """A library with CODE bytes of code; returns where that and the frames are. `frames` is a function of both."""
    allocated = constants.SHF_ALLOC

    def write(content):
        text = Section(".text", constants.SHT_PROGBITS, b"\x90" * CODE, allocated | constants.SHF_EXECINSTR, 4096)
        sections = [text, Section(".eh_frame", constants.SHT_PROGBITS, content, allocated, 8)]
        if debug:
            sections.append(Section(".debug_frame", constants.SHT_PROGBITS, debug, 0, 8))
        segments = [
            Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text"),
            Segment(constants.PT_LOAD, constants.PF_R, ".eh_frame", ".eh_frame"),
        ]
        path.write_bytes(writer.write([*sections, *writer.static_sections([])], segments))
        with Image.open(path) as image:
            return image.section(".text").address, image.section(".eh_frame").address

    text, place = write(b"\0" * 8)
    assert write(frames(text, place)) == (text, place)
    return text


distance = st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 300]))
units = st.integers(0, 40).map(lambda n: 8 * n)
change = st.one_of(
    st.tuples(st.just("cfa"), st.sampled_from([RSP, RSP, RBP, 0, 10, 11, 3]), units),
    st.tuples(st.just("offset"), units),
    st.tuples(st.just("register"), st.sampled_from([RSP, RBP])),
    st.tuples(st.just("saved"), st.integers(1, 255)),
    st.tuples(st.just("same")),
    st.tuples(st.just("remember")),
    st.tuples(st.just("restore")),
    st.tuples(st.just("end")),
)
function = st.tuples(st.integers(0, 100), st.lists(st.tuples(change, distance), max_size=8), st.integers(1, 60))


def assemble(steps):
    """(instructions, the row of each byte but the last ones, the row of these) of a function."""
    code, rows, remembered = b"", [], []
    base, offset, saved, is_end = RSP, 8, 0, False

    def row():
        if is_end:
            return tables.END, 0, 0, 0
        if FRAMES[base] == tables.OTHER:
            return tables.OTHER, 0, 0, 0
        return FRAMES[base], offset // 8, tables.SAVED_FP if saved else tables.NOT_SAVED, saved

    for (kind, *numbers), length in steps:
        rows += [row()] * length
        code += cfi.advance(length)
        match kind, numbers:
            case "cfa", (base, offset):
                code += cfi.op(cfi.DEF_CFA, base, offset)
            case "offset", (offset,):
                code += cfi.op(cfi.DEF_CFA_OFFSET, offset)
            case "register", (base,):
                code += cfi.op(cfi.DEF_CFA_REGISTER, base)
            case "saved", (saved,):
                code += cfi.saved(RBP, saved)
            case "same", ():
                saved, code = 0, code + cfi.op(cfi.SAME, RBP)
            case "end", ():
                is_end, code = True, code + cfi.op(cfi.UNDEFINED, RETURN_ADDRESS)
            case "remember", ():
                remembered.append((base, offset, saved, is_end))
                code += cfi.op(cfi.REMEMBER)
            case "restore", () if remembered:
                base, offset, saved, is_end = remembered.pop()
                code += cfi.op(cfi.RESTORE)
    return code, rows, row()


@given(st.lists(function, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_what_was_described(tmp_path, functions, chance):
    path = tmp_path / "file"
    expected, described, at = [(tables.NONE, 0, 0, 0)] * CODE, [], 0
    for gap, steps, tail in functions:
        code, rows, last = assemble(steps)
        rows += [last] * tail
        if at + gap + len(rows) > CODE:
            break
        if gap < GAP and at:
            expected[at : at + gap] = [expected[at - 1]] * gap
        expected[at + gap : at + gap + len(rows)] = rows
        described.append((at + gap, len(rows), code))
        at += gap + len(rows)
    if CODE - at < GAP:
        at = CODE
    chance.shuffle(described)

    def frames(text, place):
        section = cfi.common()
        for start, size, code in described:
            section = cfi.described(section, place, text + start, size, code)
        return section

    text = frames_file(path, frames)
    with Image.open(path) as image:
        table = read_table(image)
    assert table.counts["ranges"] == len(described)
    assert [table.find(text + inside)[1:] for inside in range(CODE)] == [
        (offset, frame, saved, slot) for frame, offset, saved, slot in expected
    ]
    assert table.find(text + CODE).frame == table.find(text - 1).frame == tables.NONE


@given(st.binary(max_size=400), st.binary(max_size=200), st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_frames_of_any_bytes(tmp_path, frames, debug, has_common):
    path = tmp_path / "file"
    if has_common:
        frames = cfi.common() + struct.pack("<II", len(frames) + 4, 0x1C) + frames
    text = frames_file(path, lambda text, place: frames or b"\0", debug)
    try:
        with Image.open(path) as image:
            table = read_table(image)
    except ElfError as error:
        assert error.message.startswith(f"{path}: damaged call frame information")
        return
    for address in (0, text, text + CODE - 1, 2**31, 2**64 - 1):
        assert table.find(address).frame in ALL_FRAMES
