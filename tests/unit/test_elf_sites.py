import re
import subprocess

import pytest

from usdtkit.elf import constants, writer
from usdtkit.elf.golang import is_go
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.sites import check, check_offset, cost
from usdtkit.elf.symbols import functions
from usdtkit.elf.writer import Section, Segment, Symbol
from usdtkit.errors import ElfError, UsageError

PROGRAM = """
#include <sys/sdt.h>
__attribute__((noinline)) int work(int n) { DTRACE_PROBE1(shop, order, n); return n * 997; }
int main(int count, char **arguments) { return work(count); }
"""


def code_file(tmp_path, code, machine="x86_64"):
    path = tmp_path / "code"
    text = Section(".text", constants.SHT_PROGBITS, code, constants.SHF_ALLOC | constants.SHF_EXECINSTR, 16)
    symbols = writer.static_sections([Symbol("start", ".text", 0, len(code))])
    segments = [Segment(constants.PT_LOAD, constants.PF_R | constants.PF_X, ".text", ".text")]
    path.write_bytes(writer.write([text, *symbols], segments, machine=machine))
    return path


def start_of(image):
    return image.section(".text").offset


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("90", "emulated"),
        ("6690", "emulated"),
        ("0f1f00", "emulated"),
        ("0f1f440000", "emulated"),
        ("660f1f840000000000", "stepped"),
        ("662e0f1f840000000000", "refused"),
        ("55", "emulated"),
        ("4154", "emulated"),
        ("4855", "stepped"),
        ("6655", "stepped"),
        ("6a05", "stepped"),
        ("e800000000", "emulated"),
        ("e900000000", "emulated"),
        ("f2e900000000", "emulated"),
        ("eb00", "emulated"),
        ("7400", "emulated"),
        ("0f8400000000", "emulated"),
        ("660f8400000000", "refused"),
        ("3ee900000000", "refused"),
        ("f00fc107", "refused"),
        ("f30f1efa", "stepped"),
        ("4883ec08", "stepped"),
        ("c5f96ec6", "refused"),
        ("c4e27d78c0", "refused"),
        ("62e27d287ace", "mistaken"),
        ("62a16d2025d2ff", "stepped"),
        ("4990", "mistaken"),
        ("4190", "mistaken"),
        ("4890", "emulated"),
        ("6690", "emulated"),
        ("0f05", "held"),
        ("0f34", "held"),
        ("cd80", "held"),
        ("cd03", "stepped"),
        ("0fa2", "stepped"),
        ("c3", "stepped"),
        ("4889e5", "stepped"),
        ("6666666666666666", "stepped"),
    ],
)
def test_cost_of_the_first_instruction(tmp_path, code, what):
    with Image.open(code_file(tmp_path, bytes.fromhex(code))) as image:
        assert cost(image, start_of(image)) == what
        assert len(functions(image, "start")) == (what not in ("mistaken", "held"))


def test_of_another_machine_it_is_not_known(tmp_path):
    with Image.open(code_file(tmp_path, bytes(8), "aarch64")) as image:
        assert cost(image, start_of(image)) == "unknown"


def test_where_a_probe_may_be(compile_c):
    with Image.open(compile_c(PROGRAM, "-O1", "-fcf-protection=none")) as image:
        (work,) = functions(image, "work")
        check(image, work.address)
        check(image, work.address, work.address + 1)  # behind the nop of the USDT site
        with pytest.raises(UsageError, match=r"inside of work, 2 bytes from its start.*work\+1 and work\+7"):
            check(image, work.address + 2)
        with pytest.raises(ElfError, match="lies in no executable segment"):
            check(image, image.section(".data").address)


def test_a_usdt_site_inside_a_function_is_a_place_of_its_own(compile_c):
    with Image.open(compile_c(PROGRAM, "-O0")) as image:
        ((site,),) = (probe.sites for probe in read_probes(image))
        work = next(f for f in functions(image, "*") if f.address < site.address < f.address + f.size)
        check(image, site.address, site.address + 1)
        with pytest.raises(UsageError, match=f"inside of {work.name}"):
            check(image, site.address + 2)


def test_without_symbols_call_frame_information_tells(compile_c, tmp_path):
    whole, stripped = compile_c(PROGRAM, "-O1", "-fcf-protection=none"), tmp_path / "stripped"
    subprocess.run(["strip", "-o", stripped, whole], check=True)
    with Image.open(whole) as image, Image.open(stripped) as other:
        (work,) = functions(image, "work")
        check(other, work.address, work.address + 1, work.address + 7)
        with pytest.raises(UsageError, match=f"inside of a function without a name at {work.address:#x}, 2 bytes"):
            check(other, work.address + 2)


def test_what_cannot_be_decoded_has_no_offsets(compile_c):
    source = """
    __asm__(".globl odd\\n.type odd,@function\\nodd: jmp 1f\\n.byte 6, 7\\n1: ret\\n.size odd,.-odd");
    int main(void) { return 0; }
    """
    with Image.open(compile_c(source)) as image:
        (odd,) = functions(image, "odd")
        check(image, odd.address)
        check_offset(image, odd, 0)
        for offset in (2, 4):
            with pytest.raises(UsageError, match=r"inside of odd.*cannot be decoded"):
                check(image, odd.address + offset)
            with pytest.raises(UsageError, match=rf"odd\+{offset} may be .*cannot be decoded"):
                check_offset(image, odd, offset)


def test_every_offset_of_a_function(compile_c):
    """As objdump lists it: an instruction begins there, or the next two that do are named."""
    with Image.open(compile_c(PROGRAM, "-O0", "-fcf-protection=full")) as image:
        (main,) = functions(image, "main")
        listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", image.path], text=True, capture_output=True)
        found = re.findall(r"^ +([0-9a-f]+):\t", listing.stdout, re.MULTILINE)
        starts = [at for number in found if 0 <= (at := int(number, 16) - main.address) < main.size]
        assert starts[0] == 0
        for offset in range(main.size):
            if offset in starts:
                check_offset(image, main, offset)
                continue
            before, after = max(at for at in starts if at < offset), [at for at in starts if at > offset][:1]
            with pytest.raises(UsageError) as raised:
                check_offset(image, main, offset)
            assert f"main+{offset} is in the middle of an instruction" in raised.value.message
            named = " and ".join(f"main+{at}" for at in [before, *after])
            assert raised.value.message.endswith(f"begin at {named}")
        for offset in (main.size, main.size + 1, 2**63, -1):
            with pytest.raises(UsageError, match="main ends before"):
                check_offset(image, main, offset)


@pytest.mark.parametrize("code", ["662e0f1f840000000000", "62e27d287ace"])
def test_an_instruction_that_the_kernel_refuses_or_mistakes(tmp_path, code):
    with Image.open(code_file(tmp_path, bytes.fromhex(code))) as image:
        with pytest.raises(UsageError, match="this prefix"):
            check(image, image.section(".text").address)


def test_go_by_its_sections(compile_c):
    source = '__attribute__((section(".go.buildinfo"), used)) char info[16]; int main(void) { return 0; }'
    with Image.open(compile_c(source)) as image:
        assert is_go(image)
    with Image.open(compile_c("int main(void) { return 0; }")) as image:
        assert not is_go(image)


def test_go_by_its_note_where_there_are_no_sections(tmp_path):
    for owner, expected in (("Go", True), ("GNU", False)):
        notes = Section(".note.x", constants.SHT_NOTE, writer.note(owner, 4, b"id"), constants.SHF_ALLOC, 4)
        data = bytearray(writer.write([notes], [Segment(constants.PT_NOTE, constants.PF_R, ".note.x", ".note.x")]))
        data[40:48] = bytes(8)  # no section table
        data[60:64] = bytes(4)
        path = tmp_path / owner
        path.write_bytes(data)
        with Image.open(path) as image:
            assert is_go(image) == expected


def test_every_function_of_libc_can_be_asked():
    path = "/usr/lib/x86_64-linux-gnu/libc.so.6"
    with Image.open(path) as image:
        costs = [cost(image, function.file_offset) for function in functions(image, "*")]
    assert {"emulated", "stepped"} <= set(costs)
