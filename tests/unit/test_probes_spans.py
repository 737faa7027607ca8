"""Spans and what is traced by them, as a tracer would see it; latencies only as far as a clock can be trusted."""

import asyncio
import enum
import gc
import inspect
import os
import sys
import time
import types

import pytest
from stubs import forget_providers

from usdtkit import Provider, argument
from usdtkit.errors import UsageError
from usdtkit.testing import expect_probes, record_probes


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


@pytest.fixture
def shop():
    return Provider("shop")


def ends(fired, name):
    """(error of the done, declared values of the start) of each span of that name, matched by their ids."""
    starts = {each.pop("span"): each for each in fired.of(f"shop:{name}__start")}
    for start in starts.values():
        del start["parent_span"], start["trace_id"]
    done = fired.of(f"shop:{name}__done")
    assert len(starts) == len(done)
    return [(each["error"], starts[each["span"]]) for each in done]


def test_a_span_by_its_first_values(shop):
    with expect_probes({"shop:order__start": 2, "shop:order__done": 2}) as fired:
        with shop.span("order", id=42, name="ada", ratio=0.5, flag=True, body=b"ab", more=[1]):
            time.sleep(0.01)
        with shop.span("order", id=-1, name="", ratio=1, flag=False, body=bytearray(b"c"), more=None):
            pass
    start, done = shop.probes
    assert start.arguments == (
        ("span", "u64"),
        ("parent_span", "u64"),
        ("trace_id", "str"),
        ("id", "i64"),
        ("name", "str"),
        ("ratio", "f64"),
        ("flag", "bool"),
        ("body", "bytes"),
        ("more", "json"),
    )
    assert done.arguments == (("span", "u64"), ("latency_ns", "u64"), ("error", "str"))
    assert fired.of("*start")[0]["span"] >> 32 == os.getpid()
    assert 10_000_000 <= fired.of("*done")[0]["latency_ns"] < 10**12
    assert ends(fired, "order") == [
        ("", {"id": 42, "name": "ada", "ratio": 0.5, "flag": True, "body": b"ab", "more": [1]}),
        ("", {"id": -1, "name": "", "ratio": 1.0, "flag": False, "body": b"c", "more": None}),
    ]


def test_a_declared_span(shop):
    order = shop.define_span("order", id="u8", state=argument("enum", names=["new"]), doc="An order.")
    assert shop.define_span("order", id="u8", state=argument("enum", names=["new"]), doc="An order.") is order
    with record_probes() as fired:
        assert order.enabled
        with order(1, state="new"):
            pass
        with shop.span("order", id=2, state=0):
            pass
        with pytest.raises(OverflowError), order(256, "new"):
            pytest.fail("a wrong call is said before the block")
    assert not order.enabled
    assert ends(fired, "order") == [("", {"id": 1, "state": "new"}), ("", {"id": 2, "state": "new"})]
    assert [probe.doc for probe in shop.probes] == ["An order. Begins.", "order ends, or an exception leaves it."]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_done_is_fired_when_an_exception_leaves_and_the_exception_goes_on(shop, error):
    with record_probes() as fired:
        with pytest.raises(error), shop.span("order"):
            raise error
    assert ends(fired, "order") == [(error.__name__, {})]


def test_spans_inside_each_other(shop):
    with record_probes() as fired:
        with shop.span("order", id=1):
            with shop.span("order", id=2):
                pass
    assert [probe.partition("__")[2] for probe, _ in fired] == ["start", "start", "done", "done"]
    assert ends(fired, "order") == [("", {"id": 2}), ("", {"id": 1})]


def test_async_with(shop):
    async def order(number):
        async with shop.span("order", id=number):
            await asyncio.sleep(0)
            if number == 3:
                raise LookupError

    async def all_orders():
        return await asyncio.gather(*map(order, range(7)), return_exceptions=True)

    with record_probes() as fired:
        results = asyncio.run(all_orders())
    assert [type(result) for result in results if result] == [LookupError]
    assert sorted((start["id"], error) for error, start in ends(fired, "order")) == [
        (number, "LookupError" if number == 3 else "") for number in range(7)
    ]


def test_nobody_looks(shop):
    order = shop.define_span("order", id="u8")
    with order("wrong") as one, shop.span("order", id=object()) as other:
        assert one is other
    assert not order.enabled


def test_a_child_after_a_fork_counts_on_under_its_own_number(shop):
    with record_probes() as fired:
        with shop.span("order"):
            pass
        child = os.fork()
        if child == 0:
            with shop.span("order"):
                pass
            starts = fired.of("*start")
            os._exit(0 if starts[1]["span"] >> 32 == os.getpid() != starts[0]["span"] >> 32 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda shop: shop.define_span("order", id="u128"), "unknown type"),
        (lambda shop: shop.define_span("order", span="u8"), "cannot be called 'span'"),
        (lambda shop: shop.define_span("order", trace_id="str"), "cannot be called 'trace_id'"),
        (lambda shop: shop.define_span("x" * 60), "66 characters"),
        (lambda shop: shop.define_span("a b"), "a span"),
        (lambda shop: shop.define_span("order", {f"a{n}": "u8" for n in range(10)}), "13 operands"),
        (lambda shop: shop.define_span("order", doc=1), "doc of span shop:order"),
        (lambda shop: (shop.define_span("order", id="u8"), shop.define_span("order", id="u16")), "twice, and diff"),
        (lambda shop: shop.traced(len), "cannot be traced"),
        (lambda shop: shop.traced(name="x")(enum), "for one function"),
        (lambda shop: shop.traced(card="u8")(lambda other: 1), "no parameter 'card'"),
    ],
)
def test_what_cannot_be(shop, wrong, why):
    with pytest.raises(UsageError, match=why):
        wrong(shop)
    assert len(shop.probes) in (0, 2)


def test_a_function(shop):
    @shop.traced
    def charge(card, *, amount=1):
        "Charge it."
        if card < 0:
            raise ValueError(card)
        return card * amount

    assert (charge(2), charge.__doc__, str(inspect.signature(charge))) == (2, "Charge it.", "(card, *, amount=1)")
    with record_probes() as fired:
        assert charge(997, amount=2) == 1994
        with pytest.raises(ValueError, match="-1"):
            charge(-1)
    assert ends(fired, "test_a_function_charge") == [("", {}), ("ValueError", {})]
    assert __name__ in shop.probes[0].doc


def test_a_function_with_its_arguments(shop):
    @shop.traced(name="charge", card="u64", amount="f64", arguments={"name": "str"})
    def charge(card, name="ada", *, amount=1):
        return card

    with record_probes() as fired:
        assert charge(1) == 1
        assert charge(2, "bob", amount=2.5) == 2
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'card'"):
            charge()
    assert ends(fired, "charge") == [
        ("", {"card": 1, "amount": 1.0, "name": "ada"}),
        ("", {"card": 2, "amount": 2.5, "name": "bob"}),
    ]


def test_a_coroutine_function(shop):
    @shop.traced(name="charge", card="i64")
    async def charge(card):
        await asyncio.sleep(0)
        if card < 0:
            raise ValueError
        return card

    async def both():
        return await asyncio.gather(charge(1), charge(-1), return_exceptions=True)

    assert inspect.iscoroutinefunction(charge)
    assert asyncio.run(charge(5)) == 5
    with record_probes() as fired:
        one, error = asyncio.run(both())
    assert (one, type(error)) == (1, ValueError)
    assert sorted(ends(fired, "charge"), key=str) == [("", {"card": 1}), ("ValueError", {"card": -1})]


def test_a_generator_function(shop):
    @shop.traced(name="numbers")
    def numbers(count):
        received = []
        for number in range(count):
            try:
                received.append((yield number))
            except LookupError:
                received.append("caught")
        return received

    assert inspect.isgeneratorfunction(numbers)
    with record_probes() as fired:
        generator = numbers(3)
        assert not fired
        assert next(generator) == 0
        assert generator.send("a") == 1
        assert generator.throw(LookupError()) == 2
        with pytest.raises(StopIteration) as stop:
            generator.send("b")
        assert stop.value.value == ["a", "caught", "b"]
        assert list(numbers(2)) == [0, 1]
        early = numbers(3)
        next(early)
        early.close()
        failing = numbers(3)
        next(failing)
        with pytest.raises(ZeroDivisionError):
            failing.throw(ZeroDivisionError())
    assert [error for error, _ in ends(fired, "numbers")] == ["", "", "GeneratorExit", "ZeroDivisionError"]


def test_an_async_generator_function(shop):
    closed = []

    @shop.traced(name="numbers")
    async def numbers(count):
        try:
            for number in range(count):
                try:
                    closed.append((yield number))
                except LookupError:
                    closed.append("caught")
        finally:
            closed.append("closed")

    async def use():
        assert [number async for number in numbers(2)] == [0, 1]
        generator = numbers(4)
        assert await generator.asend(None) == 0
        assert await generator.asend("a") == 1
        assert await generator.athrow(LookupError()) == 2
        await generator.aclose()
        failing = numbers(2)
        await failing.asend(None)
        with pytest.raises(ZeroDivisionError):
            await failing.athrow(ZeroDivisionError())

    assert inspect.isasyncgenfunction(numbers)
    asyncio.run(use())
    closed.clear()
    with record_probes() as fired:
        asyncio.run(use())
    assert closed == [None, None, "closed", "a", "caught", "closed", "closed"]
    assert [error for error, _ in ends(fired, "numbers")] == ["", "GeneratorExit", "ZeroDivisionError"]


def test_a_class(shop):
    @shop.traced
    class Cart:
        limit = 3

        def __init__(self):
            self.items = []

        def add(self, item):
            self.items.append(item)
            return self

        def _hidden(self):
            return self.add(1)

        @staticmethod
        def price(item):
            return item * 2

        @classmethod
        def made(cls):
            return cls()

        @property
        def size(self):
            return len(self.items)

        def __call__(self):
            return self.limit

    prefix = "test_a_class_Cart"
    assert {probe.name.removeprefix(prefix) for probe in shop.probes} == {
        f"_{name}__{end}" for name in ("add", "price", "made", "call") for end in ("start", "done")
    }
    with record_probes() as fired:
        cart = Cart.made()
        assert (cart._hidden().size, Cart.price(2), cart.price(3), cart()) == (1, 4, 6, 3)
    assert [each.probe.removeprefix(f"shop:{prefix}_") for each in fired if "start" in each.probe] == [
        "made__start",
        "add__start",
        "price__start",
        "price__start",
        "call__start",
    ]


def test_a_module(shop):
    module = types.ModuleType("counter")
    text = """
from os.path import join
class Counter:
    def up(self): return 1
def up(): return Counter().up() + 1
def _hidden(): return 3
other = up
value = 4
"""
    exec(compile(text, "counter.py", "exec"), module.__dict__)
    assert shop.traced(module) is module
    shop.traced(module)
    assert module.join is os.path.join
    with record_probes() as fired:
        assert module.up() == module.other() == 2
        module._hidden()
    names = [each.probe for each in fired if "start" in each.probe]
    assert names == ["shop:up__start", "shop:Counter_up__start"] * 2
    exec(compile(text, "counter.py", "exec"), module.__dict__)
    shop.traced(module)
    assert len(shop.probes) == 4


def test_two_functions_that_would_have_one_name(shop):
    def named(qualname):
        def function():
            return qualname

        function.__qualname__ = qualname
        return shop.traced(function)

    long = "x" * 100
    functions = [named(name) for name in ("a.b", "a_b", "a.b", "1a", "ö", long, long + "y")]
    names = [probe.name.removesuffix("__start") for probe in shop.probes[::2]]
    assert names[:4] == ["a_b", "a_b_2", "_1a", "function"]
    assert len(set(names)) == 6
    assert max(map(len, names)) <= 56
    with record_probes() as fired:
        for function in functions:
            function()
    assert [len(fired.of(f"shop:{name}__done")) for name in names] == [2, 1, 1, 1, 1, 1]


def test_references_are_given_back(shop):
    @shop.traced(name="charge", card="u64")
    def charge(card):
        return card

    def use():
        with shop.span("order", id=1):
            charge(7)

    use()
    with record_probes() as fired:
        use()
        fired.clear()
        gc.collect()
        before = sys.getallocatedblocks()
        for _ in range(997):
            use()
            fired.clear()
        gc.collect()
        assert sys.getallocatedblocks() - before < 100


def test_a_span_by_its_values_leaves_the_file_of_what_was_declared_before(shop):
    shop.probe("declared")
    path = shop.build()
    with shop.span("order", id=1):
        pass
    assert shop.files[0] == path
    assert [probe.path for probe in shop.probes] == [str(path), *[str(shop.files[1])] * 2]
