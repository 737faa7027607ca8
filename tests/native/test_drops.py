"""Calls that cannot be fired while somebody traces: counted, told once, and nothing of them reaches the caller."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import run_sanitised
from stubs import forget_providers, recorded

from usdtkit import Provider
from usdtkit.errors import UsageError
from usdtkit.probes import drops
from usdtkit.testing import record_probes

EVERY = {"number": "u64", "real": "f64", "text": "str", "body": "json"}
RIGHT = (1, 1.0, "a", {})


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    monkeypatch.setattr(drops, "_reported", set())
    forget_providers(monkeypatch)


@pytest.fixture
def probe():
    shop = Provider("shop")
    found = shop.probe("order", **EVERY)
    shop.load()
    return found


class Raises:
    """Raises this wherever a value is asked what it is."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __index__(self):
        raise self.error

    __float__ = __str__ = __repr__ = __index__

    def __call__(self):
        raise self.error


class Mute(Exception):
    def __str__(self):
        raise SystemExit(5)


class Deep:
    def __index__(self):
        return self.__index__()

    __str__ = __float__ = __call__ = __index__


ERRORS = [SystemExit(3), GeneratorExit(), ValueError("no"), MemoryError(), StopIteration(1), Mute(), RecursionError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_is_dropped_and_counted(probe, error):
    bad = Raises(error)
    with recorded(probe) as seen:
        for at in range(4):
            assert probe(*RIGHT[:at], bad, *RIGHT[at + 1 :]) is None
        assert probe.lazy(bad) is None
        assert probe.lazy(lambda: (1, 1.0, "a", bad)) is None
        assert sys.exc_info() == (None, None, None)
        assert probe(*RIGHT) is None
    assert (probe.dropped, len(seen)) == (6, 1)


def test_the_number_and_the_names_of_values(probe):
    with recorded(probe) as seen:
        for values, named in (
            ((), {}),
            ((1,), {}),
            ((*RIGHT, 5), {}),
            (RIGHT, {"number": 1}),
            (RIGHT[:3], {"bodi": {}}),
            (RIGHT[:3], {"body": {}, "more": 1}),
        ):
            assert probe(*values, **named) is None
        for values in ((), (1,), (*RIGHT, 5), [*RIGHT], None, 5):
            assert probe.lazy(lambda values=values: values) is None
    assert (probe.dropped, seen) == (12, [])


def test_deep_in_a_recursion(probe):
    """Where the caller has just enough room for itself, and none is left for an encoder or the log."""

    def deep(left, call):
        if left:
            return deep(left - 1, call)
        call()
        return "went on"

    def deepest(call):
        """How deep it goes before the interpreter stops it."""
        for depth in range(sys.getrecursionlimit(), 0, -1):
            try:
                assert deep(depth, call) == "went on"
            except RecursionError:
                continue
            return depth
        return 0

    calls = [
        lambda: probe(1, 1.0, "a", [[[{}]]]),
        lambda: probe(None, 1.0, "a", {}),
        lambda: probe.lazy(lambda: (1, 1.0, "a", {})),
    ]
    untraced = [deepest(call) for call in calls]
    with recorded(probe):
        assert [deepest(call) for call in calls] == untraced
        assert probe(Deep(), 1.0, "a", Deep()) is None
    assert probe.dropped > 3


def test_an_exception_that_is_being_handled_stays_what_it_is(probe):
    with recorded(probe):
        try:
            try:
                raise KeyError("mine")
            except KeyError:
                probe(Raises(ValueError("not mine")), 1.0, "a", {})
                raise
        except KeyError as error:
            assert error.__context__ is None
        try:
            try:
                raise KeyError("mine")
            finally:
                probe.lazy(Raises(SystemExit(1)))
        except KeyError as error:
            assert error.__context__ is None
    assert probe.dropped == 2


class Timeout(Exception):
    """What a service's own signal handler raises."""


def end(number, frame):
    raise SystemExit(0)


class Timer:
    def times_out(self, number, frame):
        raise Timeout

    def __call__(self, number, frame):
        raise Timeout


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (end, SystemExit),
        (Timer().times_out, Timeout),
        (Timer(), Timeout),
        (signal.default_int_handler, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("on_error", ["drop", None])
def test_what_a_signal_handler_raises_is_the_programs(handler, error, on_error):
    """A server that is told to end, or that gives a request so many seconds, in the midst of an encoder or lazy()."""
    shop = Provider("shop", on_error=on_error)
    probe = shop.probe("order", body="json")
    shop.load()

    class Slow:
        def __str__(self):
            signal.raise_signal(signal.SIGUSR1)
            return "slow"

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with recorded(probe) as seen:
            with pytest.raises(error) as caught:
                probe(Slow())
            assert type(caught.value) is error
            with pytest.raises(error):
                probe.lazy(lambda: (str(Slow()),))
            probe(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (probe.dropped, len(seen)) == (0, 1)


def test_keyboard_interrupt_reaches_the_program(probe):
    with recorded(probe):
        for call in (
            lambda: probe(Raises(KeyboardInterrupt()), 1.0, "a", {}),
            lambda: probe(1, 1.0, "a", Raises(KeyboardInterrupt())),
            lambda: probe.lazy(Raises(KeyboardInterrupt())),
        ):
            with pytest.raises(KeyboardInterrupt):
                call()
    assert probe.dropped == 0


def test_the_log_has_one_line_a_probe(caplog):
    shop = Provider("shop")
    first, second = shop.probe("first", id="u8"), shop.probe("second", id="u8")
    shop.load()
    with recorded(first), recorded(second):
        for number in range(256, 256 + 997):
            first(number)
            second("x")
    assert (first.dropped, second.dropped) == (997, 997)
    told = [(record.name, record.levelno, record.getMessage()) for record in caplog.records]
    assert [each[:2] for each in told] == [("usdtkit", logging.WARNING)] * 2
    assert "shop:first: a call was not fired" in told[0][2] and "'id' is out of range for u8" in told[0][2]
    assert "shop:second: a call was not fired" in told[1][2] and "'id' must be u8, not str" in told[1][2]


class Fails(logging.Handler):
    """A handler of the application's that is broken, and fires the probe that it is told of."""

    def __init__(self, probe):
        super().__init__()
        self.probe, self.times = probe, 0

    def handle(self, record):
        self.times += 1
        self.probe("wrong again")
        raise SystemExit("a handler that ends the program")


def test_a_log_that_fails_is_none_of_the_callers(probe):
    handler = Fails(probe)
    logging.getLogger("usdtkit").addHandler(handler)
    try:
        with recorded(probe):
            assert probe("x") is None
    finally:
        logging.getLogger("usdtkit").removeHandler(handler)
    assert (handler.times, probe.dropped) == (1, 2)


def test_it_raises_where_it_is_told_to():
    shop = Provider("shop")
    told, default = shop.probe("told", id="u8", on_error="raise"), shop.probe("default", id="u8")
    dropping = shop.probe("dropping", id="u8", on_error="drop")
    shop.load()
    with recorded(told), recorded(default), recorded(dropping):
        with pytest.raises(OverflowError):
            told(256)
        default(256)
        dropping(256)
    with record_probes() as fired:
        with pytest.raises(OverflowError):
            default(256)
        with pytest.raises(ZeroDivisionError):
            default.lazy(lambda: 1 / 0)
        dropping(256)
    assert (fired, told.dropped, default.dropped, dropping.dropped) == ([], 0, 1, 2)


DEVELOPMENT = """
import sys
from usdtkit import Provider
from usdtkit.testing import record_probes
sys.path.insert(0, sys.argv[1])
from stubs import recorded
shop = Provider("shop")
probe, drops = shop.probe("order", id="u8"), shop.probe("drops", id="u8", on_error="drop")
Provider("shop", on_error="drop") if not sys.flags.dev_mode else None
shop.load()
with recorded(probe), recorded(drops):
    drops(256)
    try:
        probe(256)
    except OverflowError:
        print("raised", drops.dropped)
    else:
        print("went on", drops.dropped)
"""


@pytest.mark.parametrize(("option", "said"), [([], "went on 1"), (["-X", "dev"], "raised 1")])
def test_in_development_mode_it_raises(option, said):
    here = Path(__file__).parents[1]
    command = [sys.executable, *option, "-c", DEVELOPMENT, here]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (f"{said}\n", 0), done.stderr


def test_references_are_given_back(probe):
    value = Raises(ValueError("x" * 1000))
    with recorded(probe):
        probe(value, 1.0, "a", {})
        before = sys.getrefcount(value), sys.getrefcount(value.error)
        for _ in range(997):
            probe(value, 1.0, "a", {})
            probe(1, 1.0, "a", value)
        value.error.__traceback__ = None
        gc.collect()
        assert (sys.getrefcount(value), sys.getrefcount(value.error)) <= (before[0], before[1])


def test_two_declarations_that_differ_are_told_with_what_differs_and_where():
    shop = Provider("shop")
    line = sys._getframe().f_lineno + 1
    shop.probe("order", id="u64", name="str", doc="Why.")
    for more, what in (
        ({"id": "u32", "name": "str", "doc": "Why."}, r"\(id: u64, name: str\) at .*, \(id: u32, name: str\) at"),
        ({"id": "u64", "name": "str", "doc": "Other."}, r"doc 'Why\.' at .*, doc 'Other\.' at"),
        ({"id": "u64", "name": "str", "doc": "Why.", "stability": "stable"}, "stability '' at .*, stability 'stable'"),
    ):
        with pytest.raises(UsageError, match=f"declared twice, and differently: {what}") as caught:
            shop.probe("order", **more)
        assert f"{__file__}:{line}," in str(caught.value)
        assert str(caught.value).endswith(f"{__file__}:{caught.traceback[0].lineno + 1}")
    shop.define_span("work", id="u64")
    with pytest.raises(UsageError, match=r"trace_id: str, id: u64\) at .*test_drops") as caught:
        shop.define_span("work", id="u32")


def test_all_of_this_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    # In a deep recursion the sanitisers need more of the stack than there is.
    run_sanitised(
        tmp_path, "probe", Path(__file__), "not sanitisers and not recursion and not Recursion and not development"
    )
