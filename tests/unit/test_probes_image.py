import hashlib
import io
import json
import subprocess
from collections import namedtuple

import pytest
from elftools.elf.elffile import ELFFile

from usdtkit.probes import image
from usdtkit.probes.image import MACHINES, build, file_name, operands

ProbeSpec = namedtuple("ProbeSpec", "name doc arguments")

ORDER = ProbeSpec("order__start", "An order arrives — ✓", (("order_id", "u64"), ("customer", "str")))
DONE = ProbeSpec("order__done", "", (("order_id", "u64"), ("status", "i32")))
EVERY_TYPE = tuple(
    (kind, kind) for kind in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "bool", "f64", "bytes")
)


def test_operands_x86_64():
    assert operands(EVERY_TYPE, MACHINES["x86_64"]) == (
        "1@%rdi 2@%rsi 4@%rdx 8@%rcx -1@%r8 -2@%r9 -4@8(%rsp) -8@16(%rsp) 1@24(%rsp) 8@32(%rsp) 8@40(%rsp) 8@48(%rsp)"
    )


def test_operands_aarch64():
    assert operands(EVERY_TYPE, MACHINES["aarch64"]) == (
        "1@x0 2@x1 4@x2 8@x3 -1@x4 -2@x5 -4@x6 -8@x7 1@[sp, 0] 8@[sp, 8] 8@[sp, 16] 8@[sp, 24]"
    )


def test_the_same_declaration_gives_the_same_bytes_and_another_gives_others():
    one = build("shop", [ORDER, DONE])
    assert one == build("shop", [ORDER, DONE])
    others = [
        build("shop", [DONE, ORDER]),
        build("shop", [ORDER]),
        build("show", [ORDER, DONE]),
        build("shop", [ORDER._replace(doc=""), DONE]),
        build("shop", [ORDER, DONE], machine="aarch64"),
    ]
    assert len({file_name("shop", content) for content in [one, *others]}) == 6
    assert file_name("shop", one) == f"shop-{hashlib.sha256(one).hexdigest()[:16]}.so"
    identities = {build_id(content) for content in [one, *others]}
    assert len(identities) == 6
    assert bytes(20) not in identities


def build_id(content):
    return ELFFile(io.BytesIO(content)).get_section_by_name(".note.gnu.build-id").data()[-20:]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_the_readers_demand_of_the_file(machine):
    elf = ELFFile(io.BytesIO(build("shop", [ORDER, DONE], machine=machine)))
    names = [section.name for section in elf.iter_sections()]
    assert names.index(".text") < names.index(".note.stapsdt")
    assert ".probes" not in names
    assert elf.get_section_by_name(".note.stapsdt")["sh_flags"] == 0
    assert elf.get_section_by_name(".stapsdt.base")["sh_addr"] > 0
    text = elf.get_section_by_name(".text")
    loads = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert [load["p_flags"] for load in loads] == [4, 5, 6]
    assert loads[1]["p_vaddr"] == text["sh_addr"] == text["sh_offset"]
    assert {load["p_align"] for load in loads} == {MACHINES[machine].page}
    stack = next(segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK")
    assert stack["p_flags"] == 6
    for table in (".dynsym", ".symtab"):
        for probe in (ORDER, DONE):
            (symbol,) = elf.get_section_by_name(table).get_symbol_by_name(f"shop_{probe.name}")
            assert symbol["st_info"]["type"] == "STT_FUNC"
            assert symbol["st_size"] == len(MACHINES[machine].code)
            assert symbol["st_value"] % 16 == 0
            offset = symbol["st_value"] - text["sh_addr"]
            assert text.data()[offset:].startswith(MACHINES[machine].code)


def test_metadata_tells_names_types_and_docs():
    elf = ELFFile(io.BytesIO(build("shop", [ORDER, DONE])))
    section = elf.get_section_by_name(".note.usdtkit")
    assert (section["sh_type"], section["sh_flags"]) == ("SHT_NOTE", 0)
    (note,) = section.iter_notes()
    assert note["n_name"] == "usdtkit"
    assert json.loads(bytes(note["n_descdata"])) == {
        "version": 1,
        "sdk": "0.1.0",
        "provider": "shop",
        "probes": [
            {
                "name": "order__start",
                "doc": "An order arrives — ✓",
                "arguments": [{"name": "order_id", "type": "u64"}, {"name": "customer", "type": "str"}],
            },
            {
                "name": "order__done",
                "doc": "",
                "arguments": [{"name": "order_id", "type": "u64"}, {"name": "status", "type": "i32"}],
            },
        ],
    }


@pytest.mark.parametrize(("machine", "objdump"), [("x86_64", "objdump"), ("aarch64", "aarch64-linux-gnu-objdump")])
def test_a_stub_is_a_nop_and_a_return(tmp_path, machine, objdump):
    path = tmp_path / "shop.so"
    path.write_bytes(build("shop", [ORDER], machine=machine))
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    instructions = [line.split("\t")[1].split()[0] for line in listing.splitlines() if line.startswith(" ")]
    assert instructions[:2] == ["nop", "ret"]
    assert image.symbol_name("shop", "order__start") in listing
