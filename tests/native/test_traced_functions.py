"""What `traced` makes of functions passes for a function, traced or not, and spans know the span around them."""

import abc
import asyncio
import collections
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import re
import subprocess
import sys
import threading
import traceback
import types
import weakref
from pathlib import Path

import pytest
from compiled import run_sanitised
from stubs import recorded

from usdtkit import Provider
from usdtkit.testing import record_probes

SPANS = Path(__file__).parents[1] / "unit" / "test_probes_spans.py"

shop = Provider("traced_functions")
step = shop.define_span("step", name="str")


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


@shop.traced
def charge(card, amount=1, *, tip: int = 0):
    """Charge it."""
    if card < 0:
        raise ValueError(card)
    return card * amount + tip


def test_it_passes_for_a_function():
    assert isinstance(charge, types.FunctionType)
    assert inspect.isfunction(charge)
    assert not inspect.iscoroutinefunction(charge)
    assert (charge.__name__, charge.__qualname__, charge.__module__) == ("charge", "charge", __name__)
    assert (charge.__doc__, charge.__annotations__) == ("Charge it.", {"tip": int})
    assert (charge.__defaults__, charge.__kwdefaults__, charge.__closure__) == ((1,), {"tip": 0}, None)
    assert charge.__globals__ is globals()
    assert charge.__code__ is charge.__wrapped__.__code__
    assert repr(charge).startswith("<function charge at 0x")
    assert str(inspect.signature(charge)) == "(card, amount=1, *, tip: int = 0)"
    assert inspect.getsource(charge).startswith("@shop.traced\ndef charge(")
    charge.note = 997
    assert (charge.note, vars(charge)["note"]) == (997, 997)
    assert weakref.ref(charge)() is charge
    assert pickle.loads(pickle.dumps(charge)) is copy.copy(charge) is copy.deepcopy(charge) is charge
    assert functools.partial(charge, 2)(3) == 6
    assert shop.traced(charge) is charge


def test_it_becomes_a_method():
    log = []

    class Base(abc.ABC):
        def __init_subclass__(cls, **options):
            log.append((cls.__name__, options))

        @abc.abstractmethod
        def pay(self): ...

    class Cart(Base):
        @shop.traced
        def __new__(cls):
            return super().__new__(cls)

        @shop.traced
        def __init_subclass__(cls, **options):
            super().__init_subclass__(**options)

        @shop.traced
        def __class_getitem__(cls, item):
            return cls, item

        @shop.traced
        def pay(self, card):
            return self, card

        @staticmethod
        @shop.traced
        def price(item):
            return item

        @classmethod
        @shop.traced
        def made(cls):
            return cls

        @property
        @shop.traced
        def size(self):
            return 7

    class Larger(Cart, extra=1):
        pass

    for _ in range(2):
        cart = Larger()
        assert (type(cart), Larger[3], Larger.made(), cart.price(2), cart.size) == (Larger, (Larger, 3), Larger, 2, 7)
        assert cart.pay(1) == Cart.pay(cart, 1) == (cart, 1)
        assert inspect.ismethod(cart.pay)
        assert cart.pay.__self__ is cart
        with pytest.raises(TypeError, match=r"pay\(\) missing 1 required positional argument: 'card'"):
            cart.pay()
    assert log == [("Cart", {}), ("Larger", {"extra": 1})]


def while_traced(traced):
    return record_probes() if traced else contextlib.nullcontext()


@pytest.mark.parametrize("traced", [False, True])
def test_a_call_is_as_without_it(traced):
    with while_traced(traced):
        assert (charge(2), charge(2, 3), charge(card=2, tip=1), charge(*(2,), **{"amount": 4})) == (2, 6, 3, 8)
        with pytest.raises(ValueError, match="-1") as caught:
            charge(-1)
        assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:] == ["charge"]
        assert caught.value.__context__ is None
        with pytest.raises(TypeError, match=r"^charge\(\) missing 1 required positional argument: 'card'$"):
            charge()


KINDS = """
import asyncio, gc, sys, warnings, weakref
warnings.simplefilter("always")

async def coroutine(a):
    return a

def generator(items):
    try:
        for item in items:
            try:
                yield item
            except LookupError:
                pass
        raise ValueError("later")
    finally:
        print("closed")

async def asynchronous(items):
    for item in items:
        try:
            yield item
        except LookupError:
            pass
    raise ValueError("later")

class Item:
    pass

class Thrown(Exception):
    pass

def items():
    try:
        while True:
            try:
                yield Item()
            except Thrown:
                pass
    finally:
        print("closed")

async def items_later():
    while True:
        try:
            yield Item()
        except Thrown:
            pass
"""

USES = """
def said(call):
    try:
        print("returned", call())
    except BaseException as error:
        print(type(error).__name__, error, repr(error.__context__))

for function in (coroutine, generator, asynchronous):
    said(function)  # without its argument
    print(type(function([])).__name__, function([]).__name__, function([]).__qualname__)
    gc.collect()

def failing():
    items = generator([1, 2])
    print(next(items), items.throw(LookupError("thrown")))
    next(items)

async def failing_later():
    items = asynchronous([1, 2])
    print(await items.asend(None), await items.athrow(LookupError("thrown")))
    await items.asend(None)

said(failing)
said(lambda: asyncio.run(failing_later()))

def passes(found, throw):
    kept = weakref.ref(next(found))
    print("gone", kept() is None)
    thrown = Thrown()
    kept = weakref.ref(thrown)
    throw(thrown)
    del thrown
    print("gone", kept() is None)

passing = items()
passes(passing, passing.throw)
passing.close()
print(list(passing))

async def passes_later():
    found = items_later()
    kept = weakref.ref(await found.__anext__())
    print("gone", kept() is None)
    thrown = Thrown()
    kept = weakref.ref(thrown)
    await found.athrow(thrown)
    del thrown
    print("gone", kept() is None)
    await found.aclose()

asyncio.run(passes_later())
abandoned = items()
next(abandoned)
del abandoned
started = coroutine(1)
started.close()
del started
def deep(n):
    return deep(n + 1)
said(lambda: deep(0))
"""

TRACED = """
from usdtkit import Provider
shop = Provider("kinds")
functions = coroutine, generator, asynchronous, items, items_later
coroutine, generator, asynchronous, items, items_later = map(shop.traced, functions)
"""


@pytest.mark.parametrize("how", ["untraced", "traced"])
def test_coroutines_and_generators_behave_as_without_it(how, tmp_path):
    recorded = "import usdtkit.testing\nwith usdtkit.testing.record_probes():\n"
    uses = USES if how == "untraced" else recorded + "".join(f"    {line}\n" for line in USES.splitlines())

    def run(program):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, re.findall("[A-Za-z]+Warning: .*", done.stderr)

    bare = run(KINDS + USES)
    assert bare[1].count("gone True") == 4
    assert run(KINDS + TRACED + uses) == bare


def parents(fired):
    """The name of each span → that of its parent, or None; each span that is mentioned has begun."""
    starts = fired.of("*__start")
    names = {each["span"]: each["name"] for each in starts}
    assert len(names) == len(starts) == len(fired.of("*__done"))
    traces = {each["span"]: each["trace_id"] for each in starts}
    assert all(each["trace_id"] == traces.get(each["parent_span"], each["trace_id"]) for each in starts)
    assert all(len(trace) == 32 and int(trace, 16) for trace in traces.values())
    assert len(set(traces.values())) == sum(not each["parent_span"] for each in starts)
    return {each["name"]: names[each["parent_span"]] if each["parent_span"] else None for each in starts}


def test_spans_within_spans():
    with record_probes() as fired:
        with step("a"):
            with step("b"), step("c"):
                pass
            with pytest.raises(ValueError, match="b2"), step("b2"):
                raise ValueError("b2")
            with step("b3"):
                pass
        with step("d"):
            pass
    assert parents(fired) == {"a": None, "b": "a", "c": "b", "b2": "a", "b3": "a", "d": None}


def test_tasks_and_threads_have_their_own():
    """The parent of a span is the one around it in its own task or thread, however they take turns."""
    started = threading.Barrier(4)

    async def task(name, depth):
        async with step(name):
            await asyncio.sleep(0)
            if depth:
                await asyncio.gather(*(task(f"{name}.{child}", depth - 1) for child in range(3)))
            await asyncio.sleep(0)
            with step(f"{name}.last"):
                await asyncio.sleep(0)

    def thread(name):
        with step(name):
            started.wait(10)
            with step(f"{name}.inner"):
                started.wait(10)

    async def everything():
        with step("main"):
            await asyncio.gather(*(task(f"main.{at}", 2) for at in range(3)), asyncio.to_thread(step_in, "main.thread"))

    def step_in(name):
        with step(name):
            pass

    with record_probes() as fired:
        threads = [threading.Thread(target=thread, args=(f"thread{at}",)) for at in range(4)]
        for each in threads:
            each.start()
        asyncio.run(everything())
        for each in threads:
            each.join()
    found = parents(fired)
    assert len(found) == 1 + 3 * 2 * (1 + 3 + 9) + 1 + 4 * 2
    assert found == {name: name.rpartition(".")[0] or None for name in found}


def test_a_task_that_outlives_its_span_still_has_it_as_parent():
    async def later():
        await asyncio.sleep(0.01)
        with step("later"), step("inner"):
            pass
        with step("last"):
            pass

    async def main():
        with step("first"):
            task = asyncio.create_task(later())
        with step("second"):
            await task

    with record_probes() as fired:
        asyncio.run(main())
    assert parents(fired) == {"first": None, "second": None, "later": "first", "inner": "later", "last": "first"}


def test_what_uses_a_generator_is_not_within_it():
    @shop.traced(name="numbers", arguments={"name": "str"})
    def numbers(name):
        with step(f"{name}.inner"):
            yield 1
            with step(f"{name}.inner.inner"):
                yield 2
        yield 3

    @shop.traced(name="numbers_later", arguments={"name": "str"})
    async def numbers_later(name):
        async with step(f"{name}.inner"):
            yield 1
        with step(f"{name}.second"):
            await asyncio.sleep(0)
            yield 2

    async def use():
        with step("later"):
            async for number in numbers_later("later.a"):
                with step(f"later.{number}"):
                    pass

    with record_probes() as fired:
        first, second = numbers("a"), numbers("b")
        for at, _ in enumerate(zip(first, second, strict=True)):
            with step(f"use{at}"):
                pass
        with step("around"):
            for _ in numbers("around.c"):
                break
        asyncio.run(use())
        with step("end"):
            pass
    found = parents(fired)
    assert found == {name: name.rpartition(".")[0] or None for name in found}
    assert len(found) == 3 * 3 + 3 + 1 + 1 + 3 + 2 + 1 - 1


def test_spans_that_end_in_another_order():
    with record_probes() as fired:
        a, b = step("a"), step("b")
        a.__enter__()
        b.__enter__()
        a.__exit__(None, None, None)
        with step("c"):
            pass
        b.__exit__(None, None, None)
        b.__exit__(None, None, None)
        with step("d"):
            pass
    assert parents(fired) == {"a": None, "b": "a", "c": "b", "d": None}


def test_a_chain_of_tasks_keeps_nothing_of_those_that_ended():
    """Each task starts the next within its span, as a service does that reschedules itself."""

    class Value:
        pass

    alive = weakref.WeakSet()
    tasks = collections.deque(maxlen=2)
    keep = shop.define_span("keep", value="json")

    async def link(left, done):
        value = Value()
        alive.add(value)
        with keep(value):
            if left:
                asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.ensure_future(link(left - 1, done))))
            else:
                done.set_result(len(alive))

    async def main():
        done = asyncio.get_running_loop().create_future()
        tasks.append(asyncio.ensure_future(link(997, done)))
        return await done

    with record_probes():
        assert asyncio.run(main()) < 10


def test_the_trace_of_another_sdk(monkeypatch):
    """As opentelemetry-api has it: https://opentelemetry.io/docs/specs/otel/trace/api/#spancontext"""
    now = types.SimpleNamespace(trace_id=0xABC, span_id=0x123, is_valid=True)
    span = types.SimpleNamespace(get_span_context=lambda: now)
    module = types.SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    with record_probes() as fired:
        with step("a"), step("b"):
            pass
        now.is_valid = False
        with step("c"):
            pass
        module.get_current_span = lambda: 1 / 0
        with step("d"):
            pass
    a, b, c, d = fired.of("*:step__start")
    assert (a["trace_id"], a["parent_span"]) == (f"{0xABC:032x}", 0x123)
    assert (b["trace_id"], b["parent_span"]) == (a["trace_id"], a["span"])
    assert len({a["trace_id"], c["trace_id"], d["trace_id"]}) == 3
    assert c["parent_span"] == d["parent_span"] == 0


def test_references_are_given_back():
    @shop.traced(name="counted", arguments={"card": "u64"})
    def counted(card):
        return card

    @shop.traced
    def items():
        yield 1

    @shop.traced
    async def later():
        async with step("later"):
            return [item async for item in asynchronous()]

    @shop.traced
    async def asynchronous():
        yield 1

    def use():
        counted(1), counted(card=2)
        with pytest.raises(TypeError):
            counted()
        with pytest.raises(TypeError):
            items(1)
        assert list(items()) == [1]
        next(items())
        with pytest.raises(StopIteration):
            later().send(None)
        later().close()
        with step("a"), contextlib.suppress(ValueError), step(name="b"):
            raise ValueError

    for traced in (False, True):
        with while_traced(traced) as fired:
            blocks = []
            for calls in (997, 2991):
                for _ in range(calls):
                    use()
                    if traced:
                        fired.clear()
                gc.collect()
                blocks.append(sys.getallocatedblocks())
            assert blocks[1] - blocks[0] < 997  # one for each call would be three times as many


def test_a_traced_function_goes_with_what_refers_to_it():
    def declared():
        @shop.traced
        def refers_to_itself():
            return refers_to_itself

        refers_to_itself.cycle = refers_to_itself()
        return weakref.ref(refers_to_itself), weakref.ref(refers_to_itself.__wrapped__)

    references = declared()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_recursion_ends_in_an_exception():
    """Also where the limit is too high for what the C stack can hold."""
    program = """
import sys, threading
from usdtkit import Provider
shop = Provider("deep")
@shop.traced
def deep(n):
    return deep(n + 1)
def run():
    try:
        deep(0)
    except RecursionError:
        print("ended")
run()
sys.setrecursionlimit(10**6)
run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
    if sys.version_info < (3, 11):
        program = program.replace("10**6", "2000")  # where the interpreter itself would use up the stack
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("ended\n" * 3, 0)


def test_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "spans").mkdir()
    run_sanitised(tmp_path / "here", "probe", __file__, "not sanitisers and not recursion and not behave")
    run_sanitised(tmp_path / "spans", "probe", SPANS, "not references")


def test_deep_in_a_recursion_it_goes_on_as_without_a_tracer():
    """Where the caller has just enough room for itself, also with values that are read by Python code."""

    def deepest(call):
        def deep(left):
            if left:
                return deep(left - 1)
            return call()

        return next(depth for depth in range(sys.getrecursionlimit(), 0, -1) if _went_on(deep, depth))

    @shop.traced(name="deep", arguments={"card": "u64"})
    def pay(card):
        return "went on"

    def block():
        with span(7), shop.span("deep_block", card=7):
            return "went on"

    span = shop.define_span("deep_block", card="u64")
    calls = [lambda: pay(7), block]
    shop.load()
    untraced = [deepest(call) for call in calls]
    ends = [probe for each in (span, pay.__usdtkit_span__) for probe in (each.start, each.done)]
    with contextlib.ExitStack() as stack:
        seen = [stack.enter_context(recorded(probe, lambda *operands: operands[0])) for probe in ends]
        assert [deepest(call) for call in calls] == untraced
        for numbers in seen:
            numbers.clear()
        assert [call() for call in calls] == ["went on"] * 2
    assert len(seen[0]) == 2 and seen[0] == seen[1][::-1]
    assert len(seen[2]) == 1 and seen[2] == seen[3]


def _went_on(deep, depth):
    try:
        return deep(depth) == "went on"
    except RecursionError:
        return False
