"""What an expression yields in the kernel is what Python yields for the same values, within 64 bits."""

import ctypes
import operator
import os
import random
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.bpf.expressions import INTEGER_TYPES, MAX_PATTERN
from usdtkit.errors import UsageError
from usdtkit.trace import Truncated, TruncatedBytes, arg, buffer, cstr, deref

EDGES = [0, 1, 2, 3, 7, 8, 63, 64, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.lshift]
BITWISE = [operator.rshift, operator.and_, operator.or_, operator.xor]


def signed(value, bits=64):
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def unsigned(value, bits=64):
    return value % (1 << bits)


def cast(value, type):
    return (signed if type[0] == "i" else unsigned)(value, int(type[1:]))


def python(op, left, right, either_signed):
    """Python's result for two integers, as the 64 bits that a program has."""
    if op in COMPARISONS:
        return op(left, right)
    if op in (operator.lshift, operator.rshift):
        return (signed if either_signed[0] else unsigned)(op(left, right % 64))
    is_signed = all(either_signed) if op is operator.and_ else any(either_signed)
    fit = signed if is_signed else unsigned
    left, right = fit(left), fit(right)
    if right == 0 and op in (operator.floordiv, operator.mod):
        return 0 if op is operator.floordiv else left
    return fit(op(left, right))


def emitted(probe, fields, calls, **options):
    """Fire with each of the tuples in `calls`; what arrived, a dictionary of the fields for each."""
    with trace.Session(**options) as session:
        session.usdt(f"{probe.provider}:{probe.name}", path=probe.path).emit(**fields)
        session.start()
        for call in calls:
            probe(*call)
        events = [event._asdict() for event in session.drain()]
        assert session.summary().lost == 0
    assert len(events) == len(calls)
    return events


@pytest.fixture(scope="module")
def pairs_of_numbers():
    chance = random.Random(997)
    chosen = [(left, right) for left in EDGES for right in EDGES]
    return chosen + [(chance.getrandbits(chance.choice([8, 32, 64])), chance.getrandbits(64)) for _ in range(97)]


@pytest.mark.parametrize("left_type", ["u64", "i64"])
@pytest.mark.parametrize("right_type", ["u64", "i64"])
def test_every_operator_with_every_sign(declare, pairs_of_numbers, left_type, right_type):
    probe = declare(f"own:{left_type}_{right_type}", left=left_type, right=right_type)
    operators = [*COMPARISONS, *ARITHMETIC, *BITWISE]
    fields = {op.__name__: op(arg("left"), arg("right")) for op in operators}
    calls = [(cast(left, left_type), cast(right, right_type)) for left, right in pairs_of_numbers]
    signs = (left_type == "i64", right_type == "i64")
    for (left, right), event in zip(calls, emitted(probe, fields, calls), strict=True):
        for op in operators:
            expected = python(op, left, right, signs)
            assert (event[op.__name__], type(event[op.__name__])) == (expected, type(expected)), (op, left, right)


@pytest.mark.parametrize("constant", [0, 1, 10, -1, -7, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
@pytest.mark.parametrize("type", ["u64", "i64"])
def test_constants_on_either_side(declare, type, constant):
    probe = declare(f"own:constant_{type}", n=type)
    operators = [*COMPARISONS, *ARITHMETIC, *BITWISE]
    fields = {f"{op.__name__}_right": op(arg("n"), constant) for op in operators}
    fields |= {f"{op.__name__}_left": op(constant, arg("n")) for op in operators}
    calls = [(cast(value, type),) for value in EDGES]
    signs = (type == "i64", constant < 0)
    for (n,), event in zip(calls, emitted(probe, fields, calls), strict=True):
        for op in operators:
            assert event[f"{op.__name__}_right"] == python(op, n, constant, signs), (op, n)
            assert event[f"{op.__name__}_left"] == python(op, constant, n, signs[::-1]), (op, n)


def test_casts(declare):
    probe = declare("own:casts", u="u64", i="i64")
    fields = {f"{name}_{type}": arg(name).cast(type) for name in ("u", "i") for type in INTEGER_TYPES}
    calls = [(value, signed(value)) for value in EDGES]
    for (u, i), event in zip(calls, emitted(probe, fields, calls), strict=True):
        for type in INTEGER_TYPES:
            assert (event[f"u_{type}"], event[f"i_{type}"]) == (cast(u, type), cast(i, type))


def test_conditions_combine(declare):
    probe = declare("own:conditions", a="u64", b="u64", flag="bool")
    a, b, flag = arg("a"), arg("b"), arg("flag")
    fields = {
        "both": (a > 1) & (b > 1),
        "one": (a > 1) | (b > 1),
        "either": (a > 1) ^ (b > 1),
        "neither": ~((a > 1) | (b > 1)),
        "twice": ~~(a > 1),
        "not_flag": ~flag,
        "flag_and": flag & (a == 0),
        "bits": ~a,
        "signed_bits": ~a.cast("i64"),
        "mask": ~a & 6,
    }
    calls = [(x, y, f) for x in (0, 1, 2, 5) for y in (0, 2) for f in (True, False)]
    for (x, y, f), event in zip(calls, emitted(probe, fields, calls), strict=True):
        expected = {
            "both": x > 1 and y > 1,
            "one": x > 1 or y > 1,
            "either": (x > 1) != (y > 1),
            "neither": not (x > 1 or y > 1),
            "twice": x > 1,
            "not_flag": not f,
            "flag_and": f and x == 0,
            "bits": 2**64 - 1 - x,
            "signed_bits": ~x,
            "mask": ~x & 6,
        }
        for name, value in expected.items():
            assert (event[name], type(event[name])) == (value, type(value)), name


def test_every_type_of_argument(declare):
    probe = declare(
        "own:types",
        **{"a": "u8", "b": "u16", "c": "u32", "d": "u64", "e": "i8", "f": "i16", "g": "i32", "h": "i64"},
        **{"yes": "bool", "real": "f64", "data": "bytes"},
    )
    lowest = (0, 0, 0, 0, -128, -(2**15), -(2**31), -(2**63), False, -0.1, b"")
    highest = (2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1, 127, 2**15 - 1, 2**31 - 1, 2**63 - 1, True, 1e308, b"\0\xff")
    with trace.Session() as session:
        session.usdt("own:types", path=probe.path).emit()
        session.start()
        probe(*lowest)
        probe(*highest)
        assert [tuple(event[4:]) for event in session.drain()] == [lowest, highest]


def test_twelve_arguments(declare):
    probe = declare("own:twelve", **{f"n{n}": "u64" for n in range(12)})
    values = tuple(2**64 - 1 - n * n for n in range(12))
    with trace.Session() as session:
        session.usdt("own:twelve", path=probe.path).emit()
        session.start()
        probe(*values)
        [event] = session.drain()
    assert event[4:] == values


def test_builtins(declare):
    probe = declare("own:builtins")
    fields = {"uid_": trace.uid, "gid_": trace.gid, "cpu_": trace.cpu, "pid_": trace.pid, "tid_": trace.tid}
    [event] = emitted(probe, fields | {"comm_": trace.comm}, [()])
    assert (event["uid_"], event["gid_"]) == (os.getuid(), os.getgid())
    assert (event["pid_"], event["tid_"]) == (os.getpid(), threading.get_native_id())
    assert event["cpu_"] < os.cpu_count()
    assert event["comm_"] == Path("/proc/thread-self/comm").read_text().strip()


LENGTHS = [0, 1, 2, 6, 7, 8, 9, 14, 15, 16, 17, 23, 24, 25, 63, 64, 65, 119, 120, 121, 126, 127, 128]


@pytest.mark.parametrize("lengths", [LENGTHS[:12], LENGTHS[12:18], LENGTHS[18:]])
def test_equality_and_prefixes_of_strings_of_all_lengths(declare, lengths):
    probe = declare("own:text", text="str")
    alphabet = "".join(chr(ord("a") + n % 26) for n in range(160))
    fields = {f"is_{n}": arg("text") == alphabet[:n] for n in lengths}
    fields |= {f"not_{n}": arg("text") != alphabet[:n] for n in lengths}
    fields |= {f"starts_{n}": arg("text").startswith(alphabet[:n]) for n in lengths}
    around = sorted({max(0, n + more) for n in lengths for more in (-8, -1, 0, 1, 2, 8)})
    texts = [alphabet[:n] for n in around]
    texts += [f"{alphabet[: n - 1]}!{rest}" for n in around if n for rest in ("", "tail")]  # one character differs
    for text, event in zip(texts, emitted(probe, fields, [(text,) for text in texts]), strict=True):
        for n in lengths:
            assert event[f"is_{n}"] is (text == alphabet[:n]), (n, text)
            assert event[f"not_{n}"] is (text != alphabet[:n]), (n, text)
            assert event[f"starts_{n}"] is text.startswith(alphabet[:n]), (n, text)


def glob(pattern, text, *, ends=True):
    """Whether a text matches; where it goes on unseen, whether it does whatever follows."""
    if not pattern:
        return not text and ends
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[at:], ends=ends) for at in range(len(text) + 1)) or pattern == "*"
    return bool(text) and pattern[0] in ("?", text[0]) and glob(pattern[1:], text[1:], ends=ends)


GLOBS = ["", "*", "?", "a", "a*", "*a", "*a*", "a?b", "*ab*ba*", "?*?", "a*b*", "*?a", "**", "aab*", "*aab", "*a?b*ab?"]


def test_globs_are_pythons(declare):
    probe = declare("own:globs", text="str")
    chance = random.Random(997)
    texts = ["", "a", "b", "aa", "ab", "ba", "aab", "abba", "aaba", "ab" * 31]
    texts += ["".join(chance.choices("ab", k=chance.randrange(1, 14))) for _ in range(97)]
    fields = {f"g{n}": arg("text").matches(pattern) for n, pattern in enumerate(GLOBS)}
    for text, event in zip(texts, emitted(probe, fields, [(text,) for text in texts]), strict=True):
        for n, pattern in enumerate(GLOBS):
            assert event[f"g{n}"] is glob(pattern, text), (pattern, text)


AROUND_BLOCKS = [0, 1, 2, 62, 63, 64, 65, 66, 126, 127, 128, 129, 130, 191, 192, 193]


def test_globs_of_strings_of_all_lengths_wherever_they_are_cut(declare):
    probe = declare("own:glob_lengths", text="str")
    sizes = [1, 63, 64, 65, 128]
    tests = {
        "contains": (lambda text: text.contains("=!="), "*=!=*"),
        "ends": (lambda text: text.endswith("=!="), "*=!="),
        "starts": (lambda text: text.matches("x*"), "x*"),
    }
    fields = {f"{name}_{size}": test(cstr("text", size)) for name, (test, _) in tests.items() for size in sizes}
    texts = ["x" * before + "=!=" + after for before in AROUND_BLOCKS for after in ("", "x")]
    texts += ["x" * length for length in AROUND_BLOCKS]
    for text, event in zip(texts, emitted(probe, fields, [(text,) for text in texts]), strict=True):
        for name, (_, pattern) in tests.items():
            for size in sizes:
                expected = glob(pattern, text[:size], ends=len(text) <= size)
                assert event[f"{name}_{size}"] is expected, (name, size, text)


def test_the_longest_string_and_the_longest_pattern(declare):
    probe = declare("own:long_glob", text="str")
    needle = "n" * (MAX_PATTERN - 1) + "!"
    fields = {"found": cstr("text", 4096).contains(needle), "last": cstr("text", 4096).endswith(needle)}
    texts = ["x" * before + needle + "n" * after for before in (0, 2000, 4033) for after in (0, 1)]
    texts += ["x" * 4034 + needle, "n" * 4096, ("n" * 62 + "x") * 65]
    for text, event in zip(texts, emitted(probe, fields, [(text,) for text in texts]), strict=True):
        assert event["found"] is (needle in text[:4096])
        assert event["last"] is (text.endswith(needle) and len(text) <= 4096)


COUNTED = {
    "buffer": buffer("address", arg("length")),
    "counted": cstr("address", length=arg("length")),
    "data": arg("data"),
}


@pytest.mark.parametrize("source", COUNTED)
def test_tests_of_bytes_and_of_counted_strings(declare, source):
    probe = declare("own:counted", address="u64", length="u64", data="bytes")
    content = bytes(range(97, 123)) * 5
    tests = {
        "whole": lambda value, text: value == text,
        "prefix": lambda value, text: value.startswith(text),
        "suffix": lambda value, text: value.endswith(text),
        "part": lambda value, text: text in value if isinstance(value, bytes) else value.contains(text),
    }
    literals = [content[:0], content[:7], content[:8], content[:64], content[1:9], content[57:70], b"a\0b", b"\0"]
    literals = [literal[:MAX_PATTERN] for literal in literals]
    fields = {
        f"{test}_{n}": build(COUNTED[source], literal)
        for test, build in tests.items()
        for n, literal in enumerate(literals)
    }
    samples = [content[:n] for n in (0, 1, 6, 7, 8, 9, 63, 64, 65, 70, 128)]
    samples += [b"a\0b", b"xa\0b", b"a\0bx", b"\0", bytes(70), content[:64] + b"\0" + content]
    memories = [ctypes.create_string_buffer(sample + b"tail", len(sample) + 4) for sample in samples]
    calls = [(ctypes.addressof(memory), len(sample), sample) for memory, sample in zip(memories, samples, strict=True)]
    for sample, event in zip(samples, emitted(probe, fields, calls, string_size=256), strict=True):
        seen = sample.partition(b"\0")[0] if source == "counted" else sample
        for test, build in tests.items():
            for n, literal in enumerate(literals):
                assert event[f"{test}_{n}"] is build(seen, literal), (test, literal, sample)


def test_a_buffer_that_is_longer_than_what_is_read_of_it(declare):
    probe = declare("own:cut_data", data="bytes")
    data = cstr("data", 8, length=100), buffer("data", 100, 8)
    fields = {f"starts_{n}": value.matches("abc*") for n, value in enumerate(data)}
    fields |= {f"contains_{n}": value.contains("h") for n, value in enumerate(data)}
    fields |= {f"beyond_{n}": value.contains("i") for n, value in enumerate(data)}
    fields |= {f"ends_{n}": value.endswith("h") for n, value in enumerate(data)}
    [event] = emitted(probe, fields, [(b"abcdefghi" * 12,)])
    assert [name for name, value in event.items() if value is True] == [
        *("starts_0", "starts_1", "contains_0", "contains_1")
    ]


def test_strings_are_bytes_to_the_kernel(declare):
    probe = declare("own:utf8", text="str")
    text = "gr\xfc\xdfe \U0001f375"
    raw = os.fsdecode(b"caf\xe9")
    fields = {"utf8": arg("text") == text, "raw": arg("text") == raw, "as_bytes": arg("text") == text.encode()}
    first, second = emitted(probe, fields | {"text": arg("text")}, [(text,), (raw,)])
    assert (first["utf8"], first["as_bytes"], first["raw"], first["text"]) == (True, True, False, text)
    assert (second["utf8"], second["raw"], second["text"]) == (False, True, raw)


def test_comm_can_be_compared(declare):
    probe = declare("own:comm")
    fields = {
        "whole": trace.comm == "fifteen-letters",
        "prefix": trace.comm.startswith("fifteen"),
        "shorter": trace.comm == "fifteen-letter",
        "longer": trace.comm == "fifteen-letters!",
        "glob": trace.comm.matches("f*-letter?"),
        "part": trace.comm.contains("n-l"),
        "suffix": trace.comm.endswith("letter"),
    }
    own = Path("/proc/thread-self/comm")
    before = own.read_text()
    own.write_text("fifteen-letters")
    try:
        [event] = emitted(probe, fields, [()])
    finally:
        own.write_text(before)
    assert (event["whole"], event["prefix"], event["shorter"], event["longer"]) == (True, True, False, False)
    assert (event["glob"], event["part"], event["suffix"]) == (True, True, False)


def test_strings_are_cut_where_they_were_asked_to_be(declare):
    probe = declare("own:cut", text="str")
    sizes = [1, 2, 7, 8, 9, 15, 16, 17, 250]
    texts = ["x" * n for n in range(32)]
    events = emitted(probe, {f"t{n}": cstr("text", n) for n in sizes}, [(text,) for text in texts])
    for text, event in zip(texts, events, strict=True):
        for size in sizes:
            assert event[f"t{size}"] == text[:size]
            assert isinstance(event[f"t{size}"], Truncated) is (len(text) > size)


def test_the_size_of_strings_is_the_sessions(declare):
    probe = declare("own:sized", text="str", data="bytes")
    [event] = emitted(probe, {"text": arg("text"), "data": arg("data")}, [("x" * 600, b"y" * 600)], string_size=500)
    assert (event["text"], event["data"]) == (Truncated("x" * 500), TruncatedBytes(b"y" * 500))
    assert isinstance(event["text"], Truncated) and isinstance(event["data"], TruncatedBytes)


def test_the_longest_string(declare):
    probe = declare("own:longest", text="str")
    for length in (4095, 4096, 4097):
        [event] = emitted(probe, {"text": cstr("text", 4096)}, [("x" * length,)])
        assert event["text"] == "x" * min(length, 4096)
        assert isinstance(event["text"], Truncated) is (length > 4096)


def test_buffers_with_a_length(declare):
    probe = declare("own:buffers", address="u64", length="i64")
    content = bytes(range(200))
    memory = ctypes.create_string_buffer(content, len(content))
    fields = {f"b{size}": buffer("address", arg("length"), size) for size in (1, 8, 13, 200)}
    fields |= {"fixed": buffer("address", 5), "computed": buffer(arg("address") + 3, arg("length") // 2, 64)}
    lengths = [0, 1, 7, 8, 9, 13, 14, 199, 200]
    events = emitted(probe, fields, [(ctypes.addressof(memory), length) for length in lengths])
    for length, event in zip(lengths, events, strict=True):
        for size in (1, 8, 13, 200):
            assert event[f"b{size}"] == content[: min(length, size)]
            assert isinstance(event[f"b{size}"], TruncatedBytes) is (length > size)
        assert event["fixed"] == content[:5]
        assert event["computed"] == content[3:][: min(length // 2, 64)]


@pytest.mark.parametrize("length", [-1, 2**31, 2**32, 2**62])
def test_lengths_that_a_hostile_program_may_claim(declare, length):
    probe = declare("own:claims", address="u64", length="i64")
    memory = ctypes.create_string_buffer(b"sixteen bytes...", 16)
    [event] = emitted(probe, {"data": buffer("address", arg("length"), 16)}, [(ctypes.addressof(memory), length)])
    assert event["data"] == b"sixteen bytes..."
    assert isinstance(event["data"], TruncatedBytes)


def test_pointers_that_lead_nowhere(declare):
    probe = declare("own:nowhere", address="u64")
    fields = {
        "text": cstr("address"),
        "data": buffer("address", 8),
        "number": deref("address", 0, "u32"),
        "equal": cstr("address") == "",
        "differs": cstr("address") != "",
        "starts": cstr("address").startswith(""),
        "matches": cstr("address").matches("*"),
        "data_matches": buffer("address", 8).contains(""),
        "counted": cstr("address", length=8) == "",
    }
    nowhere = [0, 1, 8, 2**47, 2**63, 2**64 - 1]
    with trace.Session() as session:
        session.usdt("own:nowhere", path=probe.path).emit(**fields)
        session.start()
        for address in nowhere:
            probe(address)
        for event in session.drain():
            assert (event.text, event.data, event.number) == (None, None, 0)
            assert (event.equal, event.differs, event.starts) == (False, True, False)
            assert (event.matches, event.data_matches, event.counted) == (False, False, False)
        # A NULL pointer has no text, which is no failure. Only the number behind it could not be read.
        assert session.summary().unreadable == len(fields) * (len(nowhere) - 1) + 1


def test_chains_of_pointers(declare):
    probe = declare("own:chain", first="u64")
    text = ctypes.create_string_buffer(b"at the end")
    third = ctypes.create_string_buffer(
        struct.pack("<QhHiIbBqq", ctypes.addressof(text), -2, 65534, -3, 3, -4, 252, 5, -5)
    )
    second = ctypes.create_string_buffer(struct.pack("<QQ", 0, ctypes.addressof(third) + 64))
    start = ctypes.addressof(second)
    last = deref("first", 8) - 64
    fields = {
        "text": cstr(deref(last)),
        "i16": deref(last, 8, "i16"),
        "u16": deref(last, 10, "u16"),
        "i32": deref(last, 12, "i32"),
        "u32": deref(last, 16, "u32"),
        "i8": deref(last, 20, "i8"),
        "u8": deref(last, 21, "u8"),
        "negative_offset": deref(arg("first") + 16, -8) == deref("first", 8),
        "equal": cstr(deref(last)) == "at the end",
    }
    [event] = emitted(probe, fields, [(start,)])
    assert (event["text"], event["equal"], event["negative_offset"]) == ("at the end", True, True)
    assert (event["i16"], event["u16"], event["i32"], event["u32"], event["i8"], event["u8"]) == (
        -2,
        65534,
        -3,
        3,
        -4,
        252,
    )


def test_floats_behind_pointers(declare):
    probe = declare("own:floats", address="u64")
    doubles, floats = [0.1, -2.25, 1e300, 5e-324, float("inf")], [0.5, -0.0, 1e-45, 3.4028234663852886e38]
    memory = ctypes.create_string_buffer(struct.pack("<5d4f", *doubles, *floats))
    start = ctypes.create_string_buffer(struct.pack("<Q", ctypes.addressof(memory)))
    fields = {f"d{n}": deref(deref("address"), 8 * n, "f64") for n in range(5)}
    fields |= {f"f{n}": deref(deref("address"), 40 + 4 * n, "f32") for n in range(4)}
    [event] = emitted(probe, fields, [(ctypes.addressof(start),)])
    read = [event[name] for name in fields]
    assert struct.pack("<9d", *read) == struct.pack("<5d", *doubles) + struct.pack(
        "<4d", *struct.unpack("<4f", struct.pack("<4f", *floats))
    )


CALLS = """
#include <sys/sdt.h>
#include "program.h"
NOINLINE void *called(void) { void *from = __builtin_return_address(0); DTRACE_PROBE(calls, in); return from; }
NOINLINE void *caller(void) { void *from = called(); __asm__ volatile(""); return from; }
int main(void)
{
    void *from = caller(); /* before a return probe puts its own address there */
    await_go();
    caller();
    printf("%ld %ld\\n", (long)called, (long)from);
    fflush(stdout);
    return getchar() == 0;
}"""


def test_where_the_probe_is_and_where_its_function_was_called_from(compile_c, ready):
    path = str(compile_c(CALLS, "-O1"))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        session.uprobe(path, "called").emit(at=trace.ip, by=trace.caller)
        session.uretprobe(path, "called").emit(at=trace.ip, by=trace.caller)
        session.usdt("calls:in").emit(at=trace.ip)
        session.start()
        process.stdin.write("go\n")
        process.stdin.flush()
        function, origin = (int(word) for word in process.stdout.readline().split())
        entry, inside, exit = session.drain()
        assert (entry.at, entry.by, exit.at, exit.by) == (function, origin, origin, origin)
        names = [session.symbol(process.pid, at) for at in (function, origin, inside.at)]
        assert [(frame.name, frame.offset > 0, frame.module) for frame in names] == [
            ("called", False, path),
            ("caller", True, path),
            ("called", True, path),
        ]
        process.communicate(timeout=20)
        assert session.symbol(process.pid, function).name == "called"
        assert session.symbol(process.pid, 16).label == "0x10"
    assert session.symbol(process.pid, origin).name == "caller"


def test_a_probe_does_not_know_its_functions_caller(declare):
    probe = declare("own:nobody")
    with trace.Session() as session:
        session.usdt("own:nobody", path=probe.path).emit(by=trace.caller)
        with pytest.raises(UsageError, match="the caller is not known"):
            session.start()


@pytest.fixture
def cgroups(tmp_path):
    """The file system of cgroups, version 2, mounted for the test."""
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_the_cgroup(cgroups, stepper):
    own = cgroups / "usdtkit-test"
    own.mkdir()
    target = stepper()
    try:
        with trace.Session(pid=target.pid) as session:
            counts = session.usdt("step:plain").count("cgroup")
            session.start()
            target.fire(13)
            (own / "cgroup.procs").write_text(f"{target.pid}")
            target.fire(97)
            before = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].splitlines()[0]
            known = {(cgroups / before.strip("/")).stat().st_ino: 13, own.stat().st_ino: 97}
            assert counts.read() == {(inode,): count for inode, count in known.items()}
        target.finish()
    finally:
        own.rmdir()


@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
def test_arguments_wherever_the_compiler_puts_them(compile_c, ready, optimise):
    path = compile_c("operands.c", optimise)
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        for name in ("integers", "arrays", "globals", "constants", "by_hand"):
            session.usdt(f"operands:{name}").emit()
        session.start()
        told = [line.split() for line in process.communicate("go\n", timeout=20)[0].splitlines()]
        events = [[event.probe.partition(":")[2], *map(str, event[4:])] for event in session]
    assert events == told
    assert session.summary().unreadable == 0


def test_text_is_not_a_number_and_numbers_are_no_text(declare):
    probe = declare("own:mixed", n="u64", text="str", real="f64")
    for wrong in (arg("text") + 1, arg("real") > 1, arg("n") == "text", arg("n").startswith("x"), trace.comm + 1):
        with trace.Session() as session:
            session.usdt("own:mixed", path=probe.path).emit(wrong=wrong)
            with pytest.raises(UsageError, match="own:mixed"):
                session.start()


def test_two_sites_of_one_probe_that_differ(compile_c, ready):
    source = """
    #include <sys/sdt.h>
    #include <stdio.h>
    #include <unistd.h>
    int main(int argc, char **argv)
    {
        puts("ready"); fflush(stdout); getchar();
        long wide = -5; unsigned char narrow = 200;
        __asm__ volatile("" : "+r"(wide), "+r"(narrow));
        DTRACE_PROBE2(two, sites, wide, narrow);
        DTRACE_PROBE2(two, sites, (int)-7, 3ul << 40);
        DTRACE_PROBE2(two, counts, wide, narrow);
        DTRACE_PROBE1(two, counts, wide + 1);
        return 0;
    }"""
    process = ready([compile_c(source, "-O2")])
    with trace.Session(pid=process.pid) as session:
        session.usdt("two:sites").emit(first=arg(1), second=arg(2))
        session.usdt("two:counts").emit(first=arg(1))
        session.start()
        process.stdin.close()
        events = [tuple(event[3:]) for event in session]
    assert events == [("two:sites", -5, 200), ("two:sites", -7, 3 << 40), ("two:counts", -5), ("two:counts", -4)]


def test_an_argument_that_only_some_sites_have(compile_c):
    source = """
    #include <sys/sdt.h>
    int main(int argc, char **argv)
    {
        DTRACE_PROBE2(some, sites, argc, 1);
        DTRACE_PROBE1(some, sites, argc);
        return 0;
    }"""
    with trace.Session() as session:
        source = session.usdt("some:sites", path=str(compile_c(source)))
        assert source.arguments == ("arg1",)
        source.emit(second=arg(2))
        with pytest.raises(UsageError, match="a probe cannot read it"):
            session.start()


def test_many_long_literals_fit_into_one_program(declare):
    probe = declare("own:stack", text="str")
    condition = arg("text") == "x" * 128
    for letter in "abcdefgh":
        condition = condition | (arg("text") == letter * 128)
    texts = ["x" * 128, "h" * 128, "h" * 127, "y" * 128]
    events = emitted(probe, {"known": condition}, [(text,) for text in texts])
    assert [event["known"] for event in events] == [True, True, False, False]


def test_a_literal_that_is_too_long(declare):
    probe = declare("own:literal", text="str")
    with trace.Session() as session:
        session.usdt("own:literal", path=probe.path).where(arg("text") == "x" * 129).count()
        with pytest.raises(UsageError, match="129 bytes"):
            session.start()


def test_chains_of_pointers_from_a_functions_argument():
    text = ctypes.create_string_buffer(b"at the end")
    inner = struct.pack("<ibxxxqdf", -7, -56, -5 << 40, 2.5, 1.25)
    members = ctypes.create_string_buffer(inner)
    outer = ctypes.create_string_buffer(struct.pack("<QQQh", 42, ctypes.addressof(members), ctypes.addressof(text), -3))
    member = deref(1, 8)
    fields = {
        "id": deref(1),
        "int": deref(member, 0, "i32"),
        "byte": deref(member, 4, "u8"),
        "long": deref(member, 8, "i64"),
        "double": deref(member, 16, "f64"),
        "single": deref(member, 24, "f32"),
        "text": cstr(deref(1, 16)),
        "short": deref(1, 24, "i16"),
        "address": arg(1).cast("u32"),
    }
    address = ctypes.addressof(outer)
    with trace.Session(pid=os.getpid()) as session:
        session.uprobe("c", "labs").emit(**fields)
        session.start()
        ctypes.CDLL("libc.so.6").labs(ctypes.c_long(address))
        [event] = session.drain()
    assert event[4:] == (42, -7, 200, -5 << 40, 2.5, 1.25, "at the end", -3, address & 0xFFFFFFFF)
