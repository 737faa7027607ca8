"""The compiled probe: what a tracer would see of its operands, and what it refuses."""

import array
import ctypes
import gc
import os
import pickle
import shutil
import struct
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest
from stubs import poke, recorded, site_of

import usdtkit
from usdtkit import Provider, _probe

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    assert _probe.__file__ == os.environ.get("USDTKIT_SANITISED", _probe.__file__)


def declare(**arguments):
    shop = Provider("shop")
    probe = shop.probe("order", **arguments)
    shop.load()
    return probe


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
        Provider("shop").probe("order")
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


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((("id", "u128"),), TypeError),
        (("id",), TypeError),
        ((("id", "u8", 1),), TypeError),
        (((1, "u8"),), TypeError),
        (tuple((f"a{n}", "bytes") for n in range(7)), ValueError),
        ([], TypeError),
    ],
)
def test_the_compiled_type_trusts_no_caller(arguments, error):
    with pytest.raises(error):
        usdtkit.Probe("shop", "order", "", arguments, print)


def test_load_binds_all_probes_or_none(tmp_path):
    bound = declare(id="u64")
    other = usdtkit.Probe("shop", "other", "", (), list)
    another = usdtkit.Probe("shop", "another", "", (), list)
    with pytest.raises(OSError, match="shop_missing"):
        _probe.load(bound.path, {"shop_order": other, "shop_missing": another}, 0x90)
    with pytest.raises(OSError, match="no-such-file"):
        _probe.load(str(tmp_path / "no-such-file"), {"shop_order": other}, 0x90)
    with pytest.raises(TypeError, match="expected a Probe"):
        _probe.load(bound.path, {"shop_order": object()}, 0x90)
    with pytest.raises(ValueError, match="null"):
        _probe.load("a\0b", {}, 0x90)
    assert (other.path, another.path) == (None, None)
    assert other.enabled is False  # the loader did nothing: a probe inside its own loading
    _probe.load(bound.path, {"shop_order": other}, 0x90)
    _probe.silence(other)
    assert other.path == bound.path


def test_an_exception_of_the_loader_passes():
    def loader():
        raise KeyError("loader")

    probe = usdtkit.Probe("shop", "order", "", (), loader)
    with pytest.raises(KeyError):
        probe()
    with pytest.raises(KeyError):
        probe.enabled


def build(folder, *flags):
    """A copy of the package in `folder` with the probe type compiled by these flags; returns its path."""
    shutil.copytree(ROOT / "usdtkit", folder / "usdtkit", ignore=shutil.ignore_patterns("*.so", "__pycache__", "tools"))
    module = folder / "usdtkit" / f"_probe{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_config_var("INCLUDEPY")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}", *flags]
    done = subprocess.run([*command, ROOT / "native/probe.c", "-o", module], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return module


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_it_compiles_without_a_warning(tmp_path, level):
    build(tmp_path, level)


def test_all_of_this_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    module = build(tmp_path, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        # The interpreter's own allocator hides overruns, and what it never frees is not ours.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "USDTKIT_SANITISED": str(module),
        "USDTKIT_REQUIRE_KERNEL": "",
    }
    chosen = "not compiles and not sanitisers"
    pytest_ = ["-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run([sys.executable, *pytest_], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
