import enum
from typing import Annotated, Optional

import pytest
from stubs import forget_providers

import usdtkit
from usdtkit import Provider, argument, f32, json, u8, u64
from usdtkit.errors import UsageError
from usdtkit.testing import record_probes


class State(enum.Enum):
    NEW = 1


@pytest.fixture(autouse=True)
def shop(monkeypatch, tmp_path):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    return Provider("shop")


def test_name_order_types_and_doc_are_the_functions(shop):
    @shop.define
    def order__start(
        order_id: u64,
        ratio: f32,
        count: int,
        part: float,
        flag: bool,
        name: str,
        body: bytes,
        any: json,
        thing: object,
        state: State,
        *,
        last: "u8",
    ):
        """An order arrives."""

    assert (order__start.name, order__start.doc) == ("order__start", "An order arrives.")
    assert [kind for _, kind in order__start.arguments] == (
        ["u64", "f32", "i64", "f64", "bool", "str", "bytes", "json", "json", "enum", "u8"]
    )
    assert order__start.arguments[0][0] == "order_id"
    with record_probes() as fired:
        order__start(1, 0.5, -1, 0.5, True, "ada", b"x", [1], None, State.NEW, last=255)
    assert list(fired[0].arguments.values()) == [1, 0.5, -1, 0.5, True, "ada", b"x", [1], None, "NEW", 255]


def test_units_in_annotations_and_annotations_in_strings(shop):
    @shop.define
    def done(order_id: "u64", latency: "Annotated[int, argument('u64', unit='ns')]", state: "State", flag: "bool"):
        pass

    assert done.arguments == (("order_id", "u64"), ("latency", "u64"), ("state", "enum"), ("flag", "bool"))
    assert (shop.specs[0].arguments[1].unit, shop.specs[0].doc) == ("ns", "")


def test_values_that_may_be_none(shop):
    @shop.define
    def paid(
        name: str | None,
        order_id: "Optional[u64]",  # noqa: UP045 both are tried
        cost: float | None,
        count: "None | int",  # noqa: RUF036
        state: Optional[State],  # noqa: UP045
        share: Annotated[float, argument("f32", unit="EUR")] | None,
        any: object | None,
    ):
        "Money comes."

    kinds = ["str?", "u64?", "f64?", "i64?", "enum?", "f32?", "json"]
    assert [kind for _, kind in paid.arguments] == kinds
    other = Optional[State]  # noqa: UP045
    probe = shop.probe("same", state=State | None, other=other, kind=argument("enum?", names=("a", "b")))
    assert [kind for _, kind in probe.arguments] == ["enum?"] * 3
    with record_probes() as fired:
        paid(None, None, None, None, None, None, None)
        paid("", 0, 0.0, 0, State.NEW, 0.5, 1)
        probe(None, State.NEW, "b")
    assert [list(each.arguments.values()) for each in fired] == [
        [None] * 7,
        ["", 0, 0.0, 0, "NEW", 0.5, 1],
        [None, "NEW", "b"],
    ]


def test_every_public_type_is_one_that_can_be_declared(shop):
    names = [name for name in usdtkit.__all__ if name[0] in "uif" and name[1:].isdigit()]
    assert len(names) == 10
    for name in names:

        def probe(value):
            pass

        probe.__name__, probe.__annotations__ = f"p_{name}", {"value": getattr(usdtkit, name)}
        assert shop.define(probe).arguments == (("value", name),)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda value: 1, "'<lambda>' cannot be the name of a probe"),
        (len, "defined by a function"),
        (3, "the name of a probe must be a str"),
    ],
)
def test_what_defines_no_probe(shop, function, why):
    with pytest.raises(UsageError, match=why):
        shop.define(function)


def untyped(value): ...
def variadic(*values: u8): ...
def with_default(value: u8 = 1): ...
def unknown(value: "Nonsense"): ...  # noqa: F821
def a_list(value: list): ...
def a_list_of(value: list[int]): ...
def either(value: "u8 | str | None"): ...
def a_list_or_none(value: "list | None"): ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (untyped, "'value' of probe untyped has no type"),
        (variadic, "fixed number of arguments"),
        (with_default, "fixed number of arguments"),
        (unknown, "'Nonsense' cannot be evaluated"),
        (a_list, "unknown type <class 'list'>"),
        (a_list_of, "unknown type list"),
        (either, "unknown type"),
        (a_list_or_none, "unknown type"),
    ],
)
def test_signatures_that_are_none_of_a_probe(shop, function, why):
    with pytest.raises(UsageError, match=why):
        shop.define(function)
    assert shop.probes == ()
