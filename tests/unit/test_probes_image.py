import io
import json
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from usdtkit import argument
from usdtkit.errors import UsageError
from usdtkit.probes import image
from usdtkit.probes.declaration import ProbeSpec, check_arguments
from usdtkit.probes.image import MACHINES, build, is_whole, operands, text_of


def spec(name, doc, stability="", **arguments):
    return ProbeSpec(name, doc, check_arguments(name, arguments), stability)


def file_name(provider, probes, **options):
    return image.file_name(provider, image.canonical_of(probes), **options)


STATE = argument("enum", names={"new": 0, "paid": -1}, doc="what became of it")
ORDER = spec("order__start", "An order arrives — ✓", order_id="u64", customer="str")
DONE = spec("order__done", "", order_id="u64", status="i32")
PAID = spec("paid", "", "stable", amount=argument("f32", unit="EUR"), state=STATE, basket="json")
EVERY_TYPE = check_arguments(
    "x", {kind: kind for kind in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "bool", "f64", "bytes")}
)


def test_operands_x86_64():
    assert operands(EVERY_TYPE, MACHINES["x86_64"]) == (
        "1@%rdi 2@%rsi 4@%rdx 8@%rcx -1@%r8 -2@%r9 -4@8(%rsp) -8@16(%rsp) 1@24(%rsp) 8@32(%rsp) 8@40(%rsp) 8@48(%rsp)"
    )


def test_operands_aarch64():
    assert operands(EVERY_TYPE, MACHINES["aarch64"]) == (
        "1@x0 2@x1 4@x2 8@x3 -1@x4 -2@x5 -4@x6 -8@x7 1@[sp, 0] 8@[sp, 8] 8@[sp, 16] 8@[sp, 24]"
    )


def test_f32_enum_and_json_are_integers_of_32_bits_and_a_pointer():
    assert operands(PAID.arguments, MACHINES["x86_64"]) == "4@%rdi -4@%rsi 8@%rdx"


def test_the_same_declaration_gives_the_same_bytes_and_another_gives_others():
    declarations = [
        ("shop", [ORDER, DONE]),
        ("shop", [DONE, ORDER]),
        ("shop", [ORDER]),
        ("show", [ORDER, DONE]),
        ("shop", [ORDER._replace(doc=""), DONE]),
        ("shop", [ORDER._replace(stability="stable"), DONE]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", status=argument("i32", unit="s"))]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", status=argument("i32", doc="s"))]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", statu="i32")]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", status=STATE)]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", status="json")]),
        ("shop", [ORDER, spec("order__done", "", order_id="u64", status=argument("json", limit=64))]),
    ]
    options = [{}] * len(declarations) + [{"machine": "aarch64"}, {"nop": "fast"}]
    declarations += [declarations[0]] * 2
    made = [(build(*each, **more), file_name(*each, **more)) for each, more in zip(declarations, options, strict=True)]
    assert made[0][0] == build("shop", [ORDER, DONE])
    assert len({name for _, name in made}) == len({content for content, _ in made}) == len(made)
    identities = {build_id(content) for content, _ in made}
    assert len(identities) == len(made)
    assert bytes(20) not in identities
    for content, name in made:
        assert [is_whole(content, other) for _, other in made] == [other == name for _, other in made]


def test_whether_a_nop_is_fast_matters_where_there_are_two():
    for machine, differ in (("x86_64", True), ("aarch64", False)):
        safe, fast = (
            (file_name("shop", [ORDER], machine=machine, nop=nop), build("shop", [ORDER], machine=machine, nop=nop))
            for nop in ("safe", "fast")
        )
        assert (safe != fast) is differ


def test_a_change_of_any_byte_is_damage():
    name, content = file_name("shop", [ORDER]), build("shop", [ORDER])
    assert is_whole(content, name)
    for at in range(0, len(content), 7):
        assert not is_whole(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], name)
        assert not is_whole(content[:at], name)
    assert not is_whole(content + b"\0", name)


@pytest.mark.parametrize("count", [1, 50, 500])
def test_where_the_stubs_are(count):
    content = build("shop", [spec(f"probe_{number}", "") for number in range(count)])
    text = ELFFile(io.BytesIO(content)).get_section_by_name(".text")
    assert text_of(content) == (text["sh_offset"], text["sh_size"]) == (text["sh_addr"], 16 * count)


def test_more_docs_than_readers_take():
    docs = [spec(f"probe_{number}", "x" * 4096) for number in range(256)]
    with pytest.raises(UsageError, match="at most 1048576 are possible"):
        build("shop", docs)


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
    elf = ELFFile(io.BytesIO(build("shop", [ORDER, PAID])))
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
                "name": "paid",
                "doc": "",
                "stability": "stable",
                "arguments": [
                    {"name": "amount", "type": "f32", "unit": "EUR"},
                    {"name": "state", "type": "enum", "doc": "what became of it", "names": {"new": 0, "paid": -1}},
                    {"name": "basket", "type": "json", "limit": 4096},
                ],
            },
        ],
    }


@pytest.mark.parametrize("nop", ["safe", "fast"])
@pytest.mark.parametrize(("machine", "objdump"), [("x86_64", "objdump"), ("aarch64", "aarch64-linux-gnu-objdump")])
def test_a_stub_is_a_nop_and_a_return(tmp_path, machine, objdump, nop):
    path = tmp_path / "shop.so"
    path.write_bytes(build("shop", [ORDER], machine=machine, nop=nop))
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    instructions = [line.split("\t")[1].split()[0] for line in listing.splitlines() if line.startswith(" ")]
    assert instructions[:2] == ["nopl" if nop == "fast" and machine == "x86_64" else "nop", "ret"]
    assert image.symbol_name("shop", "order__start") in listing
