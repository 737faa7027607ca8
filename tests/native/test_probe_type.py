"""The compiled probe: what a tracer would see of its operands, and what it refuses."""

import array
import ctypes
import enum
import gc
import inspect
import json
import math
import os
import pickle
import struct
import sys
import threading
import time
from pathlib import Path

import pytest
from compiled import build, run_sanitised
from stubs import forget_providers, poke, recorded, site_of

import usdtkit
from usdtkit import Provider, _probe, argument
from usdtkit.argumenttypes import DECLARABLE
from usdtkit.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    forget_providers(monkeypatch)


def declare(**arguments):
    shop = Provider("shop", on_error="raise")
    probe = shop.probe("order", **arguments)
    shop.load()
    return probe


def test_the_table_of_types_is_the_same_in_c_and_in_python():
    # A shape names a type by its number, so the order matters too.
    assert tuple(DECLARABLE) == _probe.TYPES


RANGES = {
    **{f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("kind", RANGES)
def test_integers_to_the_edges_of_their_range(kind):
    probe = declare(value=kind)
    low, high = RANGES[kind]
    with recorded(probe, lambda *operands: operands[0]) as seen:
        for value in (low, high, low + 1, 1, True):
            probe(value)
        for value in (low - 1, high + 1, 2**64, -(2**63) - 1, 10**400):
            with pytest.raises(OverflowError, match=rf"shop:order\(\) argument 'value' is out of range for {kind}$"):
                probe(value)
        for value in (1.0, "1", None):
            with pytest.raises(TypeError, match=f"'value' must be {kind}, not {type(value).__name__}"):
                probe(value)
    assert seen == [value % 2**64 for value in (low, high, low + 1, 1, 1)]


def test_an_integer_is_whatever_says_that_it_is_one():
    class Id:
        def __index__(self):
            return 997

    class Broken:
        def __index__(self):
            raise ValueError("no id yet")

    probe = declare(value="u64")
    with recorded(probe, lambda *operands: operands[0]) as seen:
        probe(Id())
        with pytest.raises(ValueError, match="no id yet"):
            probe(Broken())
    assert seen == [997]


def test_bool_and_f64():
    probe = declare(flag="bool", ratio="f64")
    with recorded(probe, lambda flag, ratio, *_: (flag, struct.unpack("<d", struct.pack("<Q", ratio))[0])) as seen:
        probe(True, 0.1)
        probe(False, -1.0)
        probe(True, 3)
        with pytest.raises(TypeError, match="'flag' must be bool, not int"):
            probe(1, 1.0)
        with pytest.raises(TypeError, match="'ratio' must be f64, not str"):
            probe(True, "1.0")
        with pytest.raises(OverflowError, match="'ratio' is out of range for f64"):
            probe(True, 10**400)
    assert seen == [(1, 0.1), (0, -1.0), (1, 3.0)]


@pytest.mark.parametrize(("kind", "digits"), [("f32", 24), ("f64", 53)])
def test_an_integer_that_a_float_cannot_say_is_out_of_range(kind, digits):
    probe = declare(ratio=kind)
    exact = [2**digits - 1, 2**digits, 2**digits + 2, -(2 ** (digits + 40)), 3]
    with recorded(probe, lambda *operands: operands[0]) as seen:
        for value in exact:
            probe(value)
        for value in (2**digits + 1, -(2**digits) - 1, 2 ** (digits + 40) + 1):
            with pytest.raises(OverflowError, match=f"'ratio' is out of range for {kind}"):
                probe(value)
    read = [
        struct.unpack("<f" if kind == "f32" else "<d", bits.to_bytes(8, "little")[: int(kind[1:]) // 8])[0]
        for bits in seen
    ]
    assert read == exact


def test_f32():
    probe = declare(ratio="f32")
    largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
    values = [0.5, -1, math.inf, -math.inf, largest, -largest, math.nextafter(largest, math.inf), 1e-46]
    with recorded(probe, lambda ratio, *_: struct.unpack("<f", struct.pack("<I", ratio))[0]) as seen:
        for value in [*values, math.nan]:
            probe(value)
        for value in (math.nextafter(2.0**128, 0), largest * (1 + 2**-24), 2.0**128, -1e300, 10**400):
            with pytest.raises(OverflowError, match="'ratio' is out of range for f32"):
                probe(value)
        with pytest.raises(TypeError, match="'ratio' must be f32, not str"):
            probe("1.0")
    assert seen[:-1] == [0.5, -1.0, math.inf, -math.inf, largest, -largest, largest, 0.0]
    assert math.isnan(seen[-1])


class State(enum.Enum):
    NEW = "n"
    PAID = "p"


class Level(enum.IntEnum):
    LOW = -3
    HIGH = 5


def test_enum():
    probe = declare(state=State, level=Level, kind=argument("enum", names={"good": 7}))
    with recorded(probe, lambda *operands: operands[:3]) as seen:
        probe(State.NEW, Level.LOW, "good")
        probe("PAID", "HIGH", 7)
        probe("p", 5, "good")
        for values in [("new", 5, 7), (State.NEW, 0, 7), (State.NEW, 5, "bad"), (Level.LOW, 5, 7), (None, 5, 7)]:
            with pytest.raises(ValueError, match=r"shop:order\(\) argument '\w+' has no such name or number: "):
                probe(*values)
        with pytest.raises(TypeError, match="'kind' must be enum, not list"):
            probe(State.NEW, 5, [])
    assert seen == [(0, 2**64 - 3, 7), (1, 5, 7), (1, 5, 7)]


def test_json_is_encoded_when_somebody_traces():
    probe = declare(before="u8", body="json", after="u8")
    probe(1, Unspeakable(AssertionError("nobody traces")), 2)
    given = [{"a": [1, None, "ö\0"]}, math.nan, (1, 2), "x\udcff", {1.5: math.inf, None: State}, b"raw\xff", 2**70]
    wanted = [
        {"a": [1, None, "ö\0"]},
        "nan",
        [1, 2],
        "x\udcff",
        {"1.5": "inf", "None": str(State)},
        "raw\ufffd",
        2**70,
    ]
    with recorded(probe, lambda before, body, after, *_: (before, json.loads(ctypes.string_at(body)), after)) as seen:
        for value in given:
            probe(1, value, 2)
    assert seen == [(1, value, 2) for value in wanted]


class Unspeakable:
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error


class Mute(Exception):
    def __str__(self):
        raise self


def circle():
    found = []
    found.append(found)
    return found


def deep():
    found = []
    for _ in range(100_000):
        found = [found]
    return found


UNSPEAKABLE = {
    "circle": (circle, ValueError, "ValueError: Circular reference detected"),
    "circle under an odd key": (lambda: {(): circle()}, RecursionError, "RecursionError: maximum recursion"),
    "deep": (deep, RecursionError, "RecursionError: (maximum recursion|Stack overflow)"),
    "no str": (lambda: Unspeakable(KeyError("id")), KeyError, "KeyError: 'id'"),
    "a str that is none": (lambda: type("Odd", (), {"__str__": lambda self: 1})(), TypeError, r"TypeError: .*__str__"),
    "not even the error": (lambda: Unspeakable(Mute()), Mute, "Mute$"),
}


@pytest.mark.parametrize(("make", "cause", "reason"), UNSPEAKABLE.values(), ids=UNSPEAKABLE)
def test_what_json_cannot_say_is_one_clear_error_or_a_counted_drop(make, cause, reason):
    shop = Provider("shop", on_error="raise")
    probe, drops = shop.probe("order", body="json"), shop.probe("drops", body="json", on_error="drop")
    message = rf"shop:order\(\) argument 'body' cannot be encoded as json: {reason}"
    value = make()
    probe(value)
    shop.load()
    with recorded(probe) as seen, recorded(drops) as others:
        with pytest.raises(ValueError, match=message) as caught:
            probe(value)
        drops(value)
        drops.lazy(lambda: (value,))
        with pytest.raises(KeyboardInterrupt):
            drops(Unspeakable(KeyboardInterrupt()))
        probe(1)
    assert type(caught.value.__cause__) is cause
    assert (len(seen), len(others), probe.dropped, drops.dropped) == (1, 0, 0, 2)


def test_long_json_is_cut_and_says_so():
    probe = declare(body=argument("json", limit=64))
    with recorded(probe, lambda body, *_: ctypes.string_at(body)) as seen:
        for value in ("x" * 62, "x" * 63, "ö" * 100, '"' * 100, "\x01" * 10_000, list(range(100))):
            probe(value)
    whole, *cut = seen
    assert whole == b'"' + b"x" * 62 + b'"'
    for text, length in zip(cut, (65, 202, 202, 60_002, 291), strict=True):
        assert len(text) <= 64
        content = json.loads(text)
        assert content["$truncated"] == length
        assert len(content["head"]) >= 3


def test_lazy_values_are_asked_for_when_somebody_traces():
    probe = declare(id="u64", name="str")
    probe.lazy(lambda: pytest.fail("nobody traces"))
    probe.lazy(None)
    with recorded(probe, lambda id, name, *_: (id, ctypes.string_at(name))) as seen:
        probe.lazy(lambda: (997, "ada"))
        for values in ((), (1,), (1, "a", 2)):
            with pytest.raises(TypeError, match=rf"takes 2 arguments but {len(values)} were given"):
                probe.lazy(lambda values=values: values)
        with pytest.raises(TypeError, match="returns a tuple of values, not list"):
            probe.lazy(lambda: [1, "ada"])
        with pytest.raises(ZeroDivisionError):
            probe.lazy(lambda: 1 / 0)
        with pytest.raises(OverflowError):
            probe.lazy(lambda: (-1, "ada"))
    assert seen == [(997, b"ada")]


def test_wrong_calls_are_counted_where_the_provider_says_so():
    shop = Provider("shop", on_error="drop")
    drops = shop.probe("drops", id="u8", body="json")
    raises = shop.probe("raises", id="u8", on_error="raise")
    assert drops(256) is None
    assert drops.dropped == 0
    with recorded(drops) as seen, recorded(raises):
        drops(1, [])
        for wrong in ((256, []), (1,), ("1", []), (1, 2, 3), (1, circle())):
            assert drops(*wrong) is None
        drops(1, id=2)
        drops.lazy(lambda: 1 / 0)
        drops.lazy(lambda: (1,))
        with pytest.raises(KeyboardInterrupt):
            drops.lazy(interrupt)
        with pytest.raises(OverflowError):
            raises(256)
    assert (len(seen), drops.dropped, raises.dropped) == (1, 8, 0)


def interrupt():
    raise KeyboardInterrupt


def test_what_a_recorder_is_given_is_what_a_tracer_reads():
    shop = Provider("shop", on_error="raise")
    kinds = {kind: kind for kind in ("u8", "i8", "bool", "f32", "f64", "str", "bytes", "json")}
    probe = shop.probe("order", {**kinds, "state": State})
    given = []
    _probe.set_recorder(probe, lambda *call: given.append(call))
    assert probe.enabled
    probe(255, -128, True, 0.1, 0.1, "a\udcff\0b", b"a\0b", {"a": 1}, State.PAID)
    with pytest.raises(OverflowError):
        probe(256, -128, True, 0.1, 0.1, "", b"", 1, State.PAID)
    _probe.set_recorder(probe, None)
    assert not probe.enabled
    probe()
    nearest = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert given == [(probe, (255, -128, True, nearest, 0.1, "a\udcff", b"a\0b", '{"a":1}', 1))]


def test_a_recorder_and_a_tracer_both_see():
    probe, given = declare(id="u64"), []
    with recorded(probe, lambda *operands: operands[0]) as seen:
        _probe.set_recorder(probe, lambda *call: given.append(call))
        probe(997)
        _probe.set_recorder(probe, None)
        probe(13)
    assert (seen, given) == ([997, 13], [(probe, (997,))])


def test_an_exception_of_the_recorder_passes():
    probe = declare(id="u64")
    _probe.set_recorder(probe, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        probe(1)
    _probe.set_recorder(probe, None)


def test_unloaded_while_threads_fire():
    shop = Provider("shop", on_error="raise")
    probe = shop.probe("order", thread="u64", call="u64")
    shop.load()
    ended = threading.Event()

    def fire(number):
        call = 0
        while not ended.is_set():
            probe(number, call := call + 1)

    with recorded(probe, lambda *operands: operands[:2]) as seen:
        threads = [threading.Thread(target=fire, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(97):
            before = len(seen)
            shop.unload()
            assert not probe.enabled
            shop.load()
            while len(seen) == before:
                time.sleep(0)
        ended.set()
        for thread in threads:
            thread.join()
        shop.unload()
        count = len(seen)
        probe(1, 1)
    assert len(seen) == count
    assert {number for number, _ in seen} <= set(range(4))


@pytest.mark.parametrize(
    ("text", "seen_as"),
    [
        ("ada", b"ada"),
        ("", b""),
        ("Ål — ✓ 🐟", "Ål — ✓ 🐟".encode()),
        ("cut\0here", b"cut"),
        ("file \udcff\udc80", b"file \xff\x80"),
        ("lone \ud800 and \udc80", b"lone \\ud800 and \\udc80"),
    ],
)
def test_str(text, seen_as):
    probe = declare(text="str")
    with recorded(probe, lambda pointer, *_: ctypes.string_at(pointer)) as seen:
        probe(text)
        for value in (b"ada", None, 1):
            with pytest.raises(TypeError, match=f"'text' must be str, not {type(value).__name__}"):
                probe(value)
    assert seen == [seen_as]


def test_str_is_not_copied():
    probe = declare(text="str")
    text = "x" * 997
    with recorded(probe, lambda pointer, *_: pointer) as seen:
        probe(text)
    assert id(text) < seen[0] < id(text) + sys.getsizeof(text)


def test_bytes_are_any_buffer_with_its_length():
    probe = declare(before="u8", body="bytes", after="u8")

    def read(before, pointer, length, after, *_):
        return before, ctypes.string_at(pointer, length), after

    body = bytearray(b"ab\0cd")
    with recorded(probe, read) as seen:
        for value in (b"", b"ab\0cd", body, memoryview(body)[1:3], array.array("H", [1, 2])):
            probe(1, value, 2)
        body.append(1)  # the buffer was given back
        for value in ("ab", memoryview(b"abcd")[::2], 3):
            with pytest.raises(TypeError, match=f"'body' must be bytes, not {type(value).__name__}"):
                probe(1, value, 2)
        with pytest.raises(OverflowError, match="'after'"):
            probe(1, body, 256)
        body.append(2)
    expected = [b"", b"ab\0cd", b"ab\0cd", b"b\0", b"\1\0\2\0"]
    assert seen == [(1, value, 2) for value in expected]


@pytest.mark.parametrize("count", range(13))
def test_each_number_of_operands(count):
    probe = declare(**{f"a{number}": "u64" for number in range(count)})
    with recorded(probe, lambda *operands: operands[: count if count > 6 else 6][:count]) as seen:
        for call in range(3):
            probe(*[call * 100 + number for number in range(count)])
    assert seen == [tuple(call * 100 + number for number in range(count)) for call in range(3)]


def test_arguments_by_name():
    probe = declare(first="u8", second="u8", third="u8")
    with recorded(probe, lambda *operands: operands[:3]) as seen:
        probe(1, 2, 3)
        probe(1, third=3, second=2)
        probe(**{"third": 3, "second": 2, "first": 1})
    assert seen == [(1, 2, 3)] * 3


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((), {}, r"shop:order\(\) takes 2 arguments, 'id' is missing"),
        ((1,), {}, "'status' is missing"),
        ((1, 2, 3), {}, "takes 2 arguments but 3 were given"),
        ((1, 2), {"status": 3}, "two values for argument 'status'"),
        ((1,), {"state": 3}, "no argument 'state'"),
    ],
)
def test_wrong_calls_while_armed(positional, named, message):
    probe = declare(id="u8", status="u8")
    with recorded(probe) as seen:
        with pytest.raises(TypeError, match=message):
            probe(*positional, **named)
    assert seen == []


def test_nothing_is_looked_at_while_nobody_traces():
    probe = declare(id="u8")
    assert probe("wrong", 1, 2, nonsense=object()) is None
    assert probe.enabled is False


def test_any_other_first_byte_is_a_tracer_and_it_may_come_and_go():
    probe = declare()
    site = site_of(probe)
    for code in (b"\xf8", b"\xf9", b"\xfc"):  # clc, stc, cld: as harmless as the nop
        poke(site, code)
        assert probe.enabled is True
        assert probe() is None
        poke(site, b"\x90")
        assert probe.enabled is False


def test_references_are_given_back():
    probe = declare(id="u64", text="str", body="bytes")
    values = (10**15, "ada" * 9, bytearray(b"abc"))
    before = [sys.getrefcount(value) for value in values]
    with recorded(probe, lambda *operands: None) as seen:
        for _ in range(997):
            probe(*values)
            with pytest.raises(TypeError):
                probe(values[0], values[1], values[1])
            with pytest.raises(TypeError):
                probe(values[0], "\udcff", values[1])
    assert len(seen) == 997
    assert [sys.getrefcount(value) for value in values] == before


def test_threads():
    probe = declare(thread="u64", call="u64")
    with recorded(probe, lambda *operands: operands[:2]) as seen:
        threads = [
            threading.Thread(target=lambda number=number: [probe(number, call) for call in range(997)])
            for number in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == [(number, call) for number in range(10) for call in range(997)]


def test_a_provider_can_be_forgotten_and_its_probe_still_fires():
    probe = declare(id="u64")
    gc.collect()
    with recorded(probe, lambda *operands: operands[0]) as seen:
        probe(997)
    assert seen == [997]


def test_a_probe_and_its_provider_are_collected_together():
    gc.collect()
    alive = len([each for each in gc.get_objects() if type(each) is Provider])
    for _ in range(10):
        Provider("shop", on_error="raise").probe("order")
    gc.collect()
    assert len([each for each in gc.get_objects() if type(each) is Provider]) == alive


def test_the_type_is_final_and_its_objects_stay_as_they_are():
    probe = declare(id="u64")
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (usdtkit.Probe,), {})
    with pytest.raises(AttributeError):
        probe.name = "other"
    with pytest.raises(TypeError, match="immutable type"):
        usdtkit.Probe.__call__ = None
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(probe)


def bare(name, *kinds, converters=None, loader=print):
    """A probe by the compiled type alone; its arguments are a0, a1…"""
    arguments = tuple((f"a{at}", kind) for at, kind in enumerate(kinds))
    numbers = bytes(list(DECLARABLE).index(kind) for kind in kinds)
    return usdtkit.Probe("shop", name, "", "", (arguments, converters or (None,) * len(kinds), numbers, ""), loader)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((("id",), (None,), b"\0", ""), TypeError),
        (((("id", "u8", 1),), (None,), b"\0", ""), TypeError),
        ((((1, "u8"),), (None,), b"\0", ""), TypeError),
        (((("id", "u128"),), (None,), bytes([len(DECLARABLE)]), ""), ValueError),
        (((("id", "u8"),), (None,), b"\xff", ""), ValueError),
        (((("id", "u8"),), (None,), b"", ""), ValueError),
        (((("id", "u8"),), (), b"\0", ""), ValueError),
        (((("id", "u8"),), (None, None), b"\0", ""), ValueError),
        (((("id", "u8"),), None, b"\0", ""), TypeError),
        (((("id", "u8"),), (None,), "\0", ""), TypeError),
        (((("id", "u8"),), (None,), b"\0", None), TypeError),
        (([], (), b"", ""), TypeError),
        (((), (), b""), TypeError),
        ([(), (), b"", ""], TypeError),
    ],
)
def test_the_compiled_type_trusts_no_caller(shape, error):
    with pytest.raises(error):
        usdtkit.Probe("shop", "order", "", "", shape, print)


def test_nor_his_converters_and_numbers():
    for kind, converter in (("enum", None), ("json", {})):
        with pytest.raises(TypeError, match="an enum needs a dict, a json a callable"):
            bare("order", kind, converters=(converter,))
    with pytest.raises(ValueError, match="too many"):
        bare("order", *["bytes"] * 7)
    for wrong in (("shop", "order", ""), ("shop", b"order", "", "", ((), (), b"", ""), print)):
        with pytest.raises(TypeError):
            usdtkit.Probe(*wrong)


def test_an_encoder_that_is_none_of_ours():
    probe = bare("order", "json", converters=(str,))
    _probe.set_recorder(probe, print)
    with pytest.raises(TypeError, match="must return bytes"):
        probe(1)


def test_load_binds_all_probes_or_none(tmp_path):
    bound = declare(id="u64")
    other = bare("other", loader=list)
    with pytest.raises(OSError, match="no-such-file"):
        _probe.load(str(tmp_path / "no-such-file"), (other,), 0x90, 0x1000, 16)
    for wrong in ((other, object()), (None,)):
        with pytest.raises(TypeError, match="expected a Probe"):
            _probe.load(bound.path, wrong, 0x90, 0x1000, 16)
    with pytest.raises(TypeError, match="tuple"):
        _probe.load(bound.path, [other], 0x90, 0x1000, 16)
    with pytest.raises(ValueError, match="null"):
        _probe.load("a\0b", (), 0x90, 0x1000, 16)
    assert other.path is None
    _probe.load(bound.path, (bound, other), 0x90, 0x1000, 0)
    assert other.path == bound.path


def test_many_probes_each_at_its_own_stub():
    shop = Provider("shop", on_error="raise")
    probes = [shop.probe(f"order_{number}", id="u64") for number in range(500)]
    shop.load()
    assert len({site_of(probe) for probe in probes}) == 500
    for number, probe in enumerate(probes[::97]):
        with recorded(probe, lambda *operands: operands[0]) as seen:
            for each in probes:
                each(number)
        assert seen == [number]


def test_an_exception_of_the_loader_passes():
    def loader():
        raise KeyError("loader")

    probe = bare("order", loader=loader)
    with pytest.raises(KeyError):
        probe()
    with pytest.raises(KeyError):
        probe.enabled


def both_ways(shop):
    """A provider's probe(), compiled and as Python says it."""
    assert type(shop.probe) is _probe.Declarer
    assert inspect.signature(shop.probe) == inspect.signature(shop.probe.__wrapped__)
    assert inspect.getdoc(shop.probe) == inspect.getdoc(Provider.probe)
    return shop.probe, shop.probe.__wrapped__


def test_declared_quickly_or_slowly_it_is_the_same():
    spec = argument("u64", unit="ns")
    for arguments in ({}, {"id": "u64"}, {"id": "u64", "name": "str"}, {"took": spec, "state": State}, {"doc": "Why."}):
        shop = Provider("shop", on_error="raise")
        quick, slow = both_ways(shop)
        first = slow("first", **arguments)
        one, other = quick("one", **arguments), slow("other", **arguments)
        assert one.shape == other.shape == first.shape
        assert (one.doc, one.stability) == (other.doc, other.stability) == (arguments.get("doc", ""), "")
        assert quick("other", **arguments) is other and slow("one", **arguments) is one
        assert shop.probes == (first, one, other)
        shop.load()
        assert one.path == other.path == first.path
        del quick, slow, shop, first, one, other
        gc.collect()


@pytest.mark.parametrize("name", ["", "1a", "a b", "ö", "a\n", "x" * 65, None, b"a", "a:b"])
def test_neither_way_takes_a_wrong_name(name):
    for declare in both_ways(Provider("shop", on_error="raise")):
        with pytest.raises(UsageError, match="a probe"):
            declare(name)


def test_neither_way_takes_a_wrong_declaration():
    quick, slow = both_ways(Provider("shop", on_error="raise"))
    slow("order", id="u64")
    for declare in (quick, slow):
        for wrong in ({"id": "u32"}, {"id": "u64", "doc": "x"}, {"id": "u64", "stability": "stable"}, {"no": "u64"}):
            with pytest.raises(UsageError, match="declared twice, and differently"):
                declare("order", **wrong)
        for wrong in (
            {"id": {}},
            {"id": "int"},
            {"doc": b"x"},
            {"doc": "x" * 4097},
            {"doc": "\udcff"},
            {"on_error": 1},
        ):
            with pytest.raises(UsageError):
                declare("other", **wrong)
        for wrong in ((), ("a", {}, {}), ("a", {"id": "u64"}, 3)):
            with pytest.raises(TypeError):
                declare(*wrong)
    with pytest.raises(KeyboardInterrupt):
        quick("other", id=Interrupting())
    assert quick("a-b", {"id": "u64"}, doc="ö" * 3000).doc == "ö" * 3000


class Interrupting:
    def __hash__(self):
        raise KeyboardInterrupt


def test_values_that_may_be_none():
    probe = declare(number="i8?", real="f64?", text="str?", body="bytes?", flag="bool?", plain="u8")
    with recorded(probe) as seen:
        probe(None, None, None, None, None, 9)
        probe(0, 0.0, "", array.array("b"), False, 9)
        probe(number=-1, real=None, text=None, body=None, flag=True, plain=9)
        with pytest.raises(TypeError, match="'number' must be i8\\?, not str"):
            probe("1", None, None, None, None, 9)
        with pytest.raises(OverflowError, match="'number' is out of range for i8\\?"):
            probe(128, None, None, None, None, 9)
        with pytest.raises(TypeError, match="'plain' must be u8, not NoneType"):
            probe(None, None, None, None, None, None)
    nothing, zeros, some = seen
    assert nothing == (0,) * 9 + (9, 0, 0)
    assert zeros[:4] == (0, 1, 0, 1) and zeros[4] and zeros[5] and zeros[6:] == (0, 0, 1, 9, 0, 0)
    assert some == (2**64 - 1, 1, 0, 0, 0, 0, 0, 1, 1, 9, 0, 0)


def test_a_name_or_type_that_is_also_the_doc():
    quick, slow = both_ways(Provider("shop", on_error="raise"))
    slow("first", id="u64")
    assert quick("second", id="u64", doc="The u64.").shape == quick("third", doc="id", id="u64").shape


def test_declared_by_threads_at_once_there_is_one_of_each():
    shop = Provider("shop", on_error="raise")
    both_ways(shop)[1]("warm", id="u64")
    barrier, found = threading.Barrier(8), []

    def declare():
        barrier.wait()
        found.append([shop.probe(f"order_{number}", id="u64") for number in range(997)])

    threads = [threading.Thread(target=declare) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(probe) for probes in found for probe in probes}) == 997
    assert len(shop.probes) == 998


def test_span_numbers_differ_in_all_threads():
    numbers = []
    threads = [
        threading.Thread(target=lambda: numbers.extend([_probe.span_number() for _ in range(997)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == 8 * 997
    assert {number >> 32 for number in numbers} == {os.getpid()}


def test_columns():
    shop = Provider("shop", on_error="raise")
    probes = shop.probe("order", id="u64", doc="Why.", stability="stable"), shop.probe("done")
    assert _probe.columns(probes) == (("order", "done"), ("Why.", ""), ("stable", ""), ("id u64", ""))
    assert _probe.columns(()) == ((), (), (), ())
    for wrong in ([], (None,), (probes[0], shop)):
        with pytest.raises(TypeError):
            _probe.columns(wrong)


def test_a_declarer_takes_what_it_can_use():
    def make(*arguments):
        return _probe.Declarer(print, "shop", print, *arguments)

    assert make({}, {}, False).quick
    for wrong in ((), ([], {}, False), ({}, None, False)):
        with pytest.raises(TypeError):
            make(*wrong)
    shapes = {("id", "u64"): "no shape"}
    with pytest.raises(TypeError, match="a shape is"):
        make({}, shapes, False)("order", id="u64")


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, "probe", level)


def test_all_of_this_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    run_sanitised(tmp_path, "probe", __file__, "not compiles and not sanitisers")
