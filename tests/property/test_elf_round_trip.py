"""What the writer writes of probes and functions, the reader reads."""

import pytest
from elffiles import note, usdt_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usdtkit.elf import constants, writer
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import Addresses, functions
from usdtkit.elf.writer import Section, Segment, Symbol

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
ARGUMENTS = st.lists(
    st.sampled_from(["8@%rdi", "-4@%esi", "8@-16(%rbp)", "1@$-1", "4f@(%rax)", "2@%ah", "8@nonsense(", "-1@%xmm9"]),
    max_size=12,
).map(" ".join)
NOTES = st.lists(
    st.tuples(NAMES, NAMES, ARGUMENTS, st.integers(0, 3), st.one_of(st.none(), st.integers(0, 3))), max_size=8
)
SYMBOLS = st.lists(
    st.tuples(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,12}", fullmatch=True), st.integers(0, 900), st.integers(0, 99)),
    max_size=12,
    unique_by=lambda symbol: symbol[0],
)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(tmp_path):
    def write(data):
        (tmp_path / "file").write_bytes(data)
        return tmp_path / "file"

    return write


@given(notes=NOTES, moved=st.sampled_from([0, 0x1000, -0x1000]), base=st.sampled_from([0x10000, 0x400000]))
@FEW
def test_notes(store, notes, moved, base):
    def content(layout):
        return b"".join(
            note(layout, provider, name, text, site=site, semaphore=semaphore, moved=moved)
            for provider, name, text, site, semaphore in notes
        )

    with Image.open(store(usdt_file(content, base=base))) as image:
        text, semaphores = image.section(".text"), image.section(".probes")
        found = {
            (probe.provider, probe.name): [
                (site.arguments_text, site.file_offset, site.semaphore_offset) for site in probe.sites
            ]
            for probe in read_probes(image)
        }
    wanted = {}
    for provider, name, arguments, site, semaphore in notes:
        offset = 0 if semaphore is None else semaphores.offset + 2 * semaphore
        wanted.setdefault((provider, name), []).append((arguments, text.offset + 2 * site, offset))
    assert found == wanted


@given(symbols=SYMBOLS)
@FEW
def test_symbols(store, symbols):
    code = Section(".text", constants.SHT_PROGBITS, bytes(1000), constants.SHF_ALLOC | constants.SHF_EXECINSTR, 16)
    segments = [Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text")]
    tables = writer.static_sections([Symbol(name, ".text", offset, size) for name, offset, size in symbols])
    with Image.open(store(writer.write([code, *tables], segments, base=0x10000))) as image:
        start = image.section(".text")
        wanted = sorted(
            (start.address + offset, name, size, start.offset + offset)
            for name, offset, size in symbols
            if ".cold" not in name
        )
        found = functions(image, "*")
        assert [(f.address, f.name, f.size, f.file_offset) for f in found] == wanted
        find = Addresses(image).find
        assert {name: find(name) for name, *_ in symbols} == {name: start.address + at for name, at, _ in symbols}
        for name, *_ in symbols[:3]:
            assert [f.name for f in functions(image, name)] == ([name] if ".cold" not in name else [])
