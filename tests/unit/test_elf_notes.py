import logging

import pytest
from elffiles import ProbeSpec, note, usdt_file

from usdtkit import argument
from usdtkit.elf import writer
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.errors import ElfError
from usdtkit.model import Argument
from usdtkit.probes import declaration
from usdtkit.probes.declaration import check_arguments
from usdtkit.probes.image import build


@pytest.fixture
def read(tmp_path):
    def probes(data, **options):
        path = tmp_path / "file"
        path.write_bytes(data)
        with Image.open(path) as image:
            return read_probes(image, **options)

    return probes


def declared(*arguments, name="order", provider="shop", **more):
    probe = {"name": name, "doc": "An order.", "arguments": [{"name": n, "type": t} for n, t in arguments]}
    return {"version": 1, "sdk": "0.1.0", "provider": provider, "probes": [probe], **more}


def shop(layout):
    return note(layout, "shop", "order", "8@%rdi 8@%rsi 8@%rdx")


def test_sites_of_one_name_are_one_probe(read):
    data = usdt_file(
        lambda layout: b"".join(
            [
                note(layout, "shop", "order", "4@%edi", site=0),
                note(layout, "shop", "done", "", site=1),
                note(layout, "shop", "order", "-8@%rsi", site=2),
                note(layout, "other", "order", "", site=3),
            ]
        )
    )
    order, done, other = read(data)
    assert [probe.spec for probe in (order, done, other)] == ["shop:order", "shop:done", "other:order"]
    assert [site.address - done.sites[0].address for site in order.sites] == [-2, 2]
    assert order.arguments == (Argument("arg1", "i64", 0),)
    assert all(data[site.file_offset] == 0x90 for site in order.sites)


def test_semaphores(read):
    data = usdt_file(lambda layout: note(layout, "a", "b", semaphore=1) + note(layout, "a", "c", site=1))
    (with_one,), (without,) = (probe.sites for probe in read(data))
    assert with_one.semaphore % 0x1000 == 2
    assert with_one.semaphore_offset == with_one.semaphore
    assert (without.semaphore, without.semaphore_offset) == (0, 0)


def test_prelink_moves_site_and_semaphore(read):
    here, moved = (
        read(usdt_file(lambda layout, by=by: note(layout, "a", "b", semaphore=0, moved=by), base=0x10000))[0].sites[0]
        for by in (0, 0x700)
    )
    assert (moved.address, moved.file_offset, moved.semaphore) == (here.address, here.file_offset, here.semaphore)
    assert moved.base == here.base - 0x700


def test_a_base_that_was_not_recorded_moves_nothing(read):
    def notes(layout):
        return writer.stapsdt_note("a", "b", "", address=layout.addresses[".text"])

    (probe,) = read(usdt_file(notes, base=0x400000))
    assert probe.sites[0].address >= 0x400000


def test_metadata_names_the_arguments(read):
    data = usdt_file(shop, metadata=declared(("id", "u64"), ("body", "bytes")))
    (probe,) = read(data, path="elsewhere")
    assert probe.arguments == (Argument("id", "u64", 0), Argument("body", "bytes", 1))
    assert (probe.doc, probe.path) == ("An order.", "elsewhere")


def test_a_provider_file_reads_as_it_was_declared(read):
    arguments = (("a", "u8"), ("b", "str"), ("c", "bytes"), ("d", "f64"), ("e", "bool"), ("f", "i64"), ("g", "u64"))
    for machine in ("x86_64", "aarch64"):
        data = build(
            "shop", [ProbeSpec("order__start", "An order arrives.", arguments), ProbeSpec("x", "", ())], machine=machine
        )
        order, x = read(data)
        assert (order.spec, order.doc) == ("shop:order__start", "An order arrives.")
        assert [(argument.name, argument.type) for argument in order.arguments] == list(arguments)
        assert [argument.operand for argument in order.arguments] == [0, 1, 2, 4, 5, 6, 7]
        assert (
            {operand.kind for operand in order.sites[0].operands} == {"register", "memory"}
            if machine == "x86_64"
            else True
        )
        assert len(order.build_id) == 40
        assert x.arguments == ()


def test_units_docs_names_and_stability(read):
    state = argument("enum", names={"new": 0, "paid": -1}, doc="so far")
    specs = check_arguments("x", {"amount": argument("f32", unit="EUR"), "state": state, "basket": "json"})
    (probe,) = read(build("shop", [declaration.ProbeSpec("paid", "", specs, "stable")]))
    assert probe.stability == "stable"
    assert [(each.name, each.type, each.operand, each.unit, each.doc, each.names) for each in probe.arguments] == [
        ("amount", "f32", 0, "EUR", "", ()),
        ("state", "enum", 1, "", "so far", (("new", 0), ("paid", -1))),
        ("basket", "json", 2, "", "", ()),
    ]


def test_two_probes_agree_on_an_argument_whatever_they_say_of_it():
    assert Argument("id", "u64", 0, "ns", "this") == Argument("id", "u64", 0, "s", "that")
    assert Argument("id", "enum", 0, names=(("new", 0),)) != Argument("id", "enum", 0, names=(("old", 0),))


def declared_with(**more):
    metadata = declared(("a", "u64"), ("body", "bytes"))
    metadata["probes"][0]["arguments"][0].update(more)
    return metadata


@pytest.mark.parametrize(
    "metadata",
    [
        declared_with(unit=1),
        declared_with(doc=[]),
        declared_with(names=["new"]),
        declared_with(names=7),
        declared_with(names={"new": "0"}),
        declared_with(names={"new": 2**31}),
        declared_with(names={"new": True}),
        declared_with(names={str(number): number for number in range(257)}),
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"version":' + b"9" * 5000 + b"}",
        b"{}",
        declared(("id", "u64")),
        declared(("id", "u64"), ("id", "u64"), ("x", "u64")),
        declared(("id; rm -rf", "u64"), ("b", "u64"), ("c", "u64")),
        declared(("a", "u128"), ("b", "u64"), ("c", "u64")),
        declared((1, "u64"), ("b", "u64"), ("c", "u64")),
        declared(("a", ["u64"]), ("b", "u64"), ("c", "u64")),
        declared(("a", "u64"), ("b", "u64"), ("c", "u64"), version=2),
        declared(("a", "u64"), ("b", "u64"), ("c", "u64"), provider=None),
        declared(("a", "u64"), ("b", "u64"), ("c", "u64"), probes=7),
        declared(("a", "u64"), ("b", "u64"), ("c", "u64"), probes=[7]),
        declared(("a" * 70, "u64"), ("b", "u64"), ("c", "u64")),
    ],
)
def test_metadata_that_makes_no_sense_is_passed_over_with_one_warning(read, caplog, metadata):
    with caplog.at_level(logging.WARNING):
        (probe,) = read(usdt_file(shop, metadata=metadata))
    assert [argument.name for argument in probe.arguments] == ["arg1", "arg2", "arg3"]
    assert len(caplog.records) == 1


def test_what_the_caller_knows_comes_after_the_metadata(read):
    known = {("shop", "order"): (("x", "u64"), ("y", "str"), ("z", "i32"))}

    def names(**options):
        return [
            argument.name
            for argument in read(usdt_file(shop, **options), known=lambda *key: known.get(key))[0].arguments
        ]

    assert names() == ["x", "y", "z"]
    assert names(metadata=declared(("id", "u64"), ("body", "bytes"))) == ["id", "body"]
    known["shop", "order"] = (("x", "u64"),)
    assert names() == ["arg1", "arg2", "arg3"]


def test_a_double_in_memory_is_f64(read):
    (probe,) = read(usdt_file(lambda layout: note(layout, "a", "b", "8f@-8(%rbp) 8f@%xmm0 -4@%edi")))
    assert [argument.type for argument in probe.arguments] == ["f64", "f64", "i32"]


def test_one_senseless_note_costs_a_warning_and_not_the_others(read, caplog):
    def notes(layout):
        good = note(layout, "a", "b")
        return b"".join(
            [
                good,
                writer.note("stapsdt", 3, b"short"),
                writer.note("stapsdt", 3, bytes(24) + b"provider without end"),
                writer.note("stapsdt", 3, bytes(24) + b"\0\0\0"),
                writer.stapsdt_note("a", "nowhere", "", address=2**64 - 1),
                writer.note("stapsdt", 4, b""),
                writer.note("GNU", 3, b"id"),
                note(layout, "a", "c", site=1),
            ]
        )

    with caplog.at_level(logging.WARNING):
        assert [probe.spec for probe in read(usdt_file(notes))] == ["a:b", "a:c"]
    (record,) = caplog.records
    assert "and 3 more" in record.getMessage()


@pytest.mark.parametrize("sizes", [(8, 2**32 - 1), (2**32 - 1, 8), (2**32 - 1, 2**32 - 1), (8, 60)])
def test_a_note_longer_than_its_section_is_damage(read, sizes):
    lengths = b"".join(size.to_bytes(4, "little") for size in sizes)
    with pytest.raises(ElfError, match="damaged note"):
        read(usdt_file(lambda layout: lengths + note(layout, "a", "b")[8:]))


def test_names_that_are_not_utf8_are_kept(read):
    data = usdt_file(lambda layout: note(layout, "shop", "order")).replace(b"order", b"\xff\x1b[mx")
    (probe,) = read(data)
    assert probe.name.encode("utf-8", "surrogateescape") == b"\xff\x1b[mx"


def test_a_file_without_notes_has_no_probes(read):
    assert read(usdt_file(b"")) == ()
