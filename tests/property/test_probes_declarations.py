"""Any declaration and any values: refused in our words, or read back by a tracer as they were."""

import ctypes
import itertools
import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stubs import recorded

from usdtkit import Provider
from usdtkit.argumenttypes import DECLARABLE
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.errors import UsageError
from usdtkit.probes import image, provider
from usdtkit.probes.declaration import STABILITIES, ProbeSpec, argument, check_arguments

COUNTER = iter(range(10**9))
ANY_TEXT = st.text(max_size=80)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,63}", fullmatch=True)
PLAIN = st.sampled_from([kind for kind in DECLARABLE if kind not in ("enum", "enum?", "json")])
ENUMS = st.dictionaries(st.text(min_size=1, max_size=20), st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5)
SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def encodable(text):
    return not any(0xD800 <= ord(each) < 0xE000 for each in text)


@st.composite
def kinds(draw):
    texts = {"unit": draw(st.text(max_size=8).filter(encodable)), "doc": draw(ANY_TEXT.filter(encodable))}
    which = draw(st.integers(0, 9))
    if which == 0:
        return argument("enum", names=draw(ENUMS.filter(lambda names: all(map(encodable, names)))), **texts)
    if which == 1:
        return argument("json", limit=draw(st.integers(64, 300)), **texts)
    return argument(draw(PLAIN), **texts)


def operands(arguments):
    return sum(len(DECLARABLE[each.type]) for each in arguments.values())


DECLARATIONS = st.dictionaries(NAMES, kinds(), max_size=12).filter(lambda arguments: operands(arguments) <= 12)
VALUES = {
    **{f"u{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"i{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    "bool": st.booleans(),
    "f32": st.floats(width=32),
    "f64": st.floats(),
    "str": st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    "bytes": st.binary(max_size=300),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=10,
    ),
}


VALUES |= {kind: st.none() | VALUES[kind[:-1]] for kind in DECLARABLE if kind.endswith("?") and kind != "enum?"}


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


@SETTINGS
@given(ANY_TEXT, ANY_TEXT, st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers() | st.none(), max_size=3), ANY_TEXT)
def test_any_declaration_is_taken_or_refused_in_our_words(name, doc, arguments, stability):
    try:
        Provider(f"any_{next(COUNTER)}").probe(name, arguments, doc=doc, stability=stability)
        Provider(name)
    except UsageError as error:
        assert str(error)


@SETTINGS
@given(
    NAMES,
    DECLARATIONS,
    ANY_TEXT.filter(encodable),
    st.sampled_from(STABILITIES),
    st.sampled_from(["x86_64", "aarch64"]),
)
def test_what_was_declared_is_what_is_read(tmp_path, name, arguments, doc, stability, machine):
    shop = Provider(f"shop_{next(COUNTER)}")
    shop.probe(name, arguments, doc=doc, stability=stability)
    path = Path(tmp_path, "file")
    path.write_bytes(image.build(shop.name, shop.specs, machine=machine))
    with Image.open(str(path)) as file:
        (probe,) = read_probes(file)
    assert (probe.provider, probe.name, probe.doc, probe.stability) == (shop.name, name, doc, stability)
    assert [(each.name, each.declared, each.unit, each.doc, each.names) for each in probe.arguments] == [
        (key, each.type, each.unit, each.doc, each.names) for key, each in arguments.items()
    ]
    assert len(probe.sites[0].operands) == operands(arguments)
    assert all(operand.kind != "unreadable" for operand in probe.sites[0].operands)


# Few and alike, so that what is not kept apart shows.
TEXTS = st.sampled_from(["", "a", "b", "a\n", "\na", "a u8", "', '", "('', '')"])
ALIKE = st.builds(
    lambda name, doc, arguments, stability: ProbeSpec(name, doc, check_arguments(name, arguments), stability),
    st.sampled_from("ab"),
    TEXTS,
    st.dictionaries(st.sampled_from("ab"), st.builds(argument, st.sampled_from(["u8", "str"]), unit=TEXTS, doc=TEXTS)),
    st.sampled_from(STABILITIES[:3]),
)


@SETTINGS
@given(st.lists(ALIKE, max_size=3), st.lists(ALIKE, max_size=3))
def test_files_have_the_same_name_for_the_same_declarations_only(one, other):
    assert (image.canonical_of(one) == image.canonical_of(other)) == (one == other)


@SETTINGS
@given(st.data(), DECLARATIONS)
def test_values_arrive_as_they_were_given(data, arguments):
    shop = Provider(f"shop_{next(COUNTER)}")
    probe = shop.probe("order", arguments)
    shop.load()
    values = [
        data.draw(st.sampled_from([name for name, _ in each.names]) if each.type == "enum" else VALUES[each.type])
        for each in arguments.values()
    ]
    with recorded(probe, lambda *words: list(map(read(words).get, arguments, arguments.values()))) as seen:
        probe(*values)
    assert len(seen) == 1
    for each, value, got in zip(arguments.values(), values, seen[0], strict=True):
        if each.type == "enum":
            value = dict(each.names)[value]
        elif each.type in ("str", "str?") and value is not None:
            value = value.partition("\0")[0]
        elif each.type == "json":
            assert len(got) <= each.limit
            content = json.loads(got)
            assert content == value or content["$truncated"] > each.limit
            continue
        assert got == value or (math.isnan(got) and math.isnan(value))
        assert (got is None) == (value is None)


class read(dict):
    """Reads operands by argument, in order, as a tracer would."""

    def __init__(self, words):
        super().__init__()
        self.words = iter(words)

    def get(self, name, argument):
        word = next(self.words)
        kind = argument.type.removesuffix("?")
        if kind != argument.type:
            # What stands behind a number or bytes says for a number whether there is one.
            behind = 1 if kind == "str" else next(self.words)
            if not (word if kind in ("str", "bytes") else behind):
                assert (word, behind if kind != "str" else 0) == (0, 0)
                return None
            self.words = itertools.chain([behind] if kind == "bytes" else [], self.words)
        match kind:
            case "str":
                return ctypes.string_at(word).decode()
            case "json":
                return ctypes.string_at(word)
            case "bytes":
                return ctypes.string_at(word, next(self.words))
            case "f32":
                return struct.unpack("<f", struct.pack("<I", word & 0xFFFFFFFF))[0]
            case "f64":
                return struct.unpack("<d", struct.pack("<Q", word))[0]
        (size,) = DECLARABLE[kind]
        raw = word.to_bytes(8, "little")[: abs(size)]
        return int.from_bytes(raw, "little", signed=size < 0)


@SETTINGS
@given(st.sampled_from([kind for kind in VALUES if kind != "json"]), st.one_of(*VALUES.values(), st.just(object())))
def test_any_value_is_fired_right_or_refused(kind, value):
    shop = provider.Provider(f"shop_{next(COUNTER)}", on_error="drop")
    probe = shop.probe("order", value=kind)
    shop.load()
    with recorded(probe, lambda *words: read(words).get("value", argument(kind))) as seen:
        probe(value)
    assert len(seen) + probe.dropped == 1
    if seen and kind.removesuffix("?") not in ("str", "bytes", "f32"):
        assert seen[0] == value or math.isnan(seen[0])
