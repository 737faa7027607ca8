"""Events as objects of a user's own class, and what type checkers know of them."""

import asyncio
import dataclasses
import os
import subprocess
import sys
from typing import Any, ClassVar, NamedTuple

import attrs
import pytest

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import Sources, arg


class Sale(NamedTuple):
    pid: int
    price: int
    customer: "str | None"


@dataclasses.dataclass
class Wide:
    kinds: ClassVar[int] = 7
    total: int
    probe: str
    time_ns: int
    data: "bytes | None" = None
    made: "list[int]" = dataclasses.field(default_factory=list, init=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    customer: "str | None"
    comm: str


@dataclasses.dataclass
class Single:
    price: float


@attrs.define
class OfAttrs:
    """Its first field's argument lacks the underscore; its last field is no argument."""

    _price: int
    customer: "str | None"
    made: int = attrs.field(default=7, init=False)


@pytest.fixture
def sale(declare):
    return declare("rows:sale", price="i64", customer="str", data="bytes")


@pytest.fixture
def session(sale):
    with trace.Session(pid=os.getpid(), ordered=True) as session:
        yield session


def source_of(session, sale):
    return session.usdt("rows:sale", path=sale.path)


def test_a_named_tuple(session, sale):
    source_of(session, sale).emit(into=Sale)
    session.start()
    for price in range(97):
        sale(price, "ada", b"")
    session.stop()
    assert list(session.events(Sale)) == [Sale(os.getpid(), price, "ada") for price in range(97)]


def test_a_dataclass_with_an_expression_and_the_header(session, sale):
    source_of(session, sale).emit(into=Wide, total=arg("price") * 2)
    session.start()
    sale(-5, "", b"\0x")
    session.stop()
    [row] = session.events(Wide)
    assert row == Wide(-10, "rows:sale", row.time_ns, b"\0x") and row.time_ns > 0 and row.made == []


def test_other_classes(session, sale):
    source = source_of(session, sale)
    for into in (Named, Single, OfAttrs):
        source.emit(into=into)
    session.start()
    sale(3, "ada", b"")
    session.stop()
    named, single, other = session
    assert named.customer == "ada" and named.comm and single == Single(3)
    assert (other._price, other.customer, other.made) == (3, "ada", 7)


def test_names_that_are_given_must_be_fields(session, sale):
    source = source_of(session, sale)
    source.emit("price", "customer", into=Sale)
    for names, fields, message in (
        (("data",), {}, "Sale has no field data"),
        ((), {"total": arg("price"), "other": arg("price")}, "Sale has no field total, other"),
        (("latency",), {}, "Sale has no field latency_ns"),
    ):
        with pytest.raises(UsageError, match=message) as raised:
            source.emit(*names, into=Sale, **fields)
        assert "pid, price, customer" in raised.value.hint


def test_fields_of_which_nothing_is_known(session, sale):
    with pytest.raises(UsageError, match="Wide needs total, which is not known here") as raised:
        source_of(session, sale).emit(into=Wide)
    assert "price" in raised.value.hint and "latency_ns" in raised.value.hint


def test_types_that_the_values_never_have(session, sale):
    class Wrong(NamedTuple):
        price: "str | None"

    Wrong.__annotations__["price"] = str | None
    source_of(session, sale).emit(into=Wrong)
    with pytest.raises(UsageError, match=r"Wrong\.price must be annotated as int"):
        session.program()


def test_annotations_that_allow_the_values(session, sale):
    class Loose(NamedTuple):
        price: float
        customer: Any
        data: "OnlyForTypeCheckers"  # noqa: F821

    source_of(session, sale).emit(into=Loose)
    assert session.program().text


@pytest.mark.parametrize("into", [int, dict, tuple, "Sale", type("Empty", (), {})])
def test_what_is_no_class_with_fields(into, session, sale):
    with pytest.raises(UsageError, match="is not a class that declares fields"):
        source_of(session, sale).emit(into=into)


def test_a_field_that_is_called_into(session, sale):
    source_of(session, sale).emit(into=arg("price"))
    session.start()
    sale(5, "", b"")
    assert [event.into for event in session.drain()] == [5]


def test_every_event_must_be_one_of_the_class(session, sale):
    source = source_of(session, sale)
    with pytest.raises(UsageError, match="no source sends events"):
        session.events(Sale)
    source.emit(into=Sale)
    source.emit(into=Single)
    assert session.events(object)
    with pytest.raises(UsageError, match="also sends events that are not of type Sale"):
        session.events(Sale)


def test_beside_other_events_in_the_order_of_time(session, sale):
    """Also those with the same fields as a row."""
    source = source_of(session, sale)
    source.emit("price", "customer")
    source.emit(into=Sale)
    session.start()
    for price in range(31):
        sale(price, "x" * (price % 3 * 60), b"")
    session.stop()
    events = list(session)
    assert [event.price for event in events] == [price for price in range(31) for _ in range(2)]
    assert [type(event) is Sale for event in events] == [False, True] * 31


def test_columns_keep_the_names_of_the_fields(session, sale):
    source_of(session, sale).emit(into=Sale)
    session.start()
    sale(5, "ada", b"")
    [columns] = session.drain_columns()
    assert columns.keys() == ("time_ns", "pid", "tid", "probe", "price", "customer") and columns["price"][0] == 5


def test_several_sources(session, sale):
    source = source_of(session, sale)
    Sources(source.where(arg("price") < 5), source.where(arg("price") > 7)).emit(into=Sale)
    session.start()
    for price in range(10):
        sale(price, "", b"")
    session.stop()
    assert sorted(row.price for row in session.events(Sale)) == [0, 1, 2, 3, 4, 8, 9]


def test_asynchronous_iteration(session, sale):
    source_of(session, sale).emit(into=Sale)
    session.start()
    sale(1, "", b"")
    session.stop()

    async def prices():
        return [row.price async for row in session.events(Sale)]

    assert asyncio.run(prices()) == [1]


SNIPPET = """
import dataclasses
from typing import NamedTuple
from usdtkit import trace

class Query(NamedTuple):
    latency_ns: int
    query: str | None

@dataclasses.dataclass
class Look:
    host: str

async def follow(session: trace.Session) -> None:
    async for look in session.events(Look):
        print(look.host.upper())
        print(look.hots)

with trace.Session() as session:
    session.usdt("mysql:query__done").emit(into=Query)
    for event in session.events(Query):
        print(event.latency_ns + 1, event.query)
        print(event.latncy_ns)
        print(event.query.upper())
"""


def test_a_type_checker_knows_the_fields(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "snippet.py"],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    lines = SNIPPET.splitlines()
    wrong = {
        number: text for number, text in enumerate(lines, 1) if "hots" in text or "latncy" in text or "query.u" in text
    }
    assert [int(error.split(":")[1]) for error in errors] == list(wrong), checked.stdout
    assert all(word in text for word, text in zip(("hots", "latncy_ns", "upper"), errors, strict=True))
