"""C of a user's own: its events are like all others, and what is wrong in it is said in its own lines."""

import ctypes

import pytest

from usdtkit import trace
from usdtkit.errors import ProgramError, UsageError, UsdtkitError
from usdtkit.trace import Truncated, arg, cstr

EVERY_TYPE = """
event->id = order * 2;
event->below = (s32)delta - 1;
event->odd = order & 1;
event->half = bits;
event->name_length = read_string(event->name, sizeof(event->name), text);
event->raw_length = read_buffer(event->raw, sizeof(event->raw), text, 3);
event->first = read_user(text, 1, unreadable);
"""


@pytest.fixture
def order(declare):
    return declare("raw:order", order="u64", delta="i32", customer="str", half="f64")


def source_of(session, probe):
    return session.usdt(f"{probe.provider}:{probe.name}", path=probe.path)


def test_fields_of_every_type(order):
    fields = {"id": "u64", "below": "i32", "odd": "bool", "half": "f64", "name": "str", "raw": "bytes", "first": "u8"}
    with trace.Session(string_size=16) as session:
        values = {"order": "order", "delta": "delta", "text": "customer", "bits": arg("half")}
        source_of(session, order).where(arg("order") > 0).raw(EVERY_TYPE, fields, **values)
        source_of(session, order).emit("order")
        session.start()
        for call in ((0, 0, "nobody", 0.0), (3, -5, "ada", 0.5), (2, 7, "x" * 40, -1.5)):
            order(*call)
        events = list(session.drain())
    raw = [event[4:] for event in events if hasattr(event, "id")]
    assert raw == [(6, -6, True, 0.5, "ada", b"ada", 97), (4, 6, False, -1.5, "x" * 16, b"xxx", 120)]
    assert isinstance(raw[1][4], Truncated)
    assert {event.probe for event in events} == {"raw:order"}
    assert [event.order for event in events if hasattr(event, "order")] == [0, 3, 2]


def test_maps_and_functions_of_its_own(order):
    declarations = """
    BPF_HASH(seen, u64, u64, 64);
    static __always_inline u64 twice(u64 value) { return 2 * value; }
    """
    text = """
    u64 one = 1, *times = seen.lookup(&order);
    if (!times) {
        seen.update(&order, &one);
        goto drop;
    }
    *times += 1;
    event->times = twice(*times);
    """
    with trace.Session() as session:
        source_of(session, order).raw(text, {"times": "u64"}, declarations=declarations, order="order")
        session.start()
        for number in (1, 2, 1, 1, 3, 2):
            order(number, 0, "", 0.0)
        assert [event.times for event in session.drain()] == [4, 6, 4]
        assert session.summary().lost == 0


def test_at_the_end_of_a_pair(declare):
    begin, end = declare("raw:begin", n="u64"), declare("raw:end", n="u64")
    with trace.Session() as session:
        specs = [trace.usdt(f"raw:{probe.name}", path=probe.path) for probe in (begin, end)]
        pair = session.pair(*specs, keep=["n"])
        pair.raw("event->both = first * 1000 + id;", {"both": "u64"}, first=pair.kept("n"), id=arg(1))
        session.start()
        begin(13)
        end(7)
        assert [event.both for event in session.drain()] == [13007]


def test_a_compile_error_is_shown_in_the_users_lines(order):
    with trace.Session() as session:
        source = source_of(session, order)
        source.emit("order")
        source.raw("u64 fine = order;\nevent->n = nonsense + fine;\n", {"n": "u64"}, order="order")
        source.count("order")
        with pytest.raises(UsageError, match=r"raw C of raw:order, line 2: .*'nonsense'") as raised:
            session.start()
    assert raised.value.message.endswith("in: event->n = nonsense + fine;")


def test_an_error_in_declarations(order):
    with trace.Session() as session:
        source_of(session, order).raw("", {"n": "u64"}, declarations="struct known { int a; };\nunknown_type b;")
        with pytest.raises(UsageError, match=r"declarations of the raw C of raw:order, line 2: .*'unknown_type'"):
            session.start()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("u64 i = 0; while (address) { i += *(volatile u64 *)&address; }", "loop"),
        ("event->n = *(u64 *)address;", "mem"),
        ("event->n = 1; return 0;", "reference"),
    ],
)
def test_what_the_verifier_refuses(order, text, reason):
    with trace.Session() as session:
        source = source_of(session, order)
        source.emit("order", "customer")
        source.raw(text, {"n": "u64"}, address="order")
        with pytest.raises(UsdtkitError, match=r"^raw C of raw:order: the kernel's verifier rejects") as raised:
            session.start()
    assert reason in raised.value.message
    assert not isinstance(raised.value, ProgramError)


def test_too_much_for_the_verifier_is_said_of_the_condition_that_asks_it(declare):
    probe = declare("raw:much", text="str", number="u64")
    long = cstr("text", 4096)
    condition = long.contains("a") | long.contains("b") | long.contains("c") | long.contains("d")
    with trace.Session() as session:
        source = session.usdt("raw:much", path=probe.path)
        source.count("number")
        source.where(condition).emit("number")
        with pytest.raises(UsdtkitError, match=r"^where\(…\) of emit\(number\) of raw:much: .*too large") as raised:
            session.start()
    assert "read less of the strings" in raised.value.hint


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"a b": "u64"}, "cannot be called"),
        ({"é": "u64"}, "cannot be called"),
        ({"_x": "u64"}, "cannot be called"),
        ({"pid": "u64"}, "cannot be called"),
        ({"n": "u128"}, "cannot have the type 'u128'"),
    ],
)
def test_fields_that_cannot_be(order, fields, complaint):
    with trace.Session() as session:
        with pytest.raises(UsageError, match=complaint):
            source_of(session, order).raw("", fields)


def test_strings_that_lie_nowhere(declare):
    probe = declare("raw:nowhere", address="u64")
    text = """
    event->text_length = counted(read_string(event->text, sizeof(event->text), address), unreadable);
    event->first = read_user(address, 1, unreadable);
    """
    content = ctypes.create_string_buffer(b"somewhere")
    with trace.Session() as session:
        session.usdt("raw:nowhere", path=probe.path).raw(text, {"text": "str", "first": "u8"}, address="address")
        session.start()
        probe(0)
        probe(ctypes.addressof(content))
        assert [event[4:] for event in session.drain()] == [(None, 0), ("somewhere", ord("s"))]
        assert session.summary().unreadable == 1  # the number: a NULL pointer has no text, which is no failure
