import enum
import gc
import threading

import pytest
from stubs import forget_providers

from usdtkit import Provider, argument
from usdtkit.testing import expect_probes, record_probes


class State(enum.Enum):
    NEW = "n"
    PAID = "p"


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


def test_what_fired_as_a_tracer_reads_it():
    shop = Provider("shop")
    order = shop.probe("order", id="u64", state=State, basket="json", limited=argument("json", limit=64))
    with expect_probes("shop:order") as fired:
        assert order.enabled
        order(42, State.PAID, {"a": [1]}, "x" * 100)
        late = shop.probe("late", id="u8")
        late(id=1)
    assert not order.enabled
    order("nobody", "looks", 1, 2)
    (first, second) = fired
    assert first.probe == "shop:order"
    assert first.arguments.pop("limited").startswith('{"$truncated":102,')
    assert first.arguments == {"id": 42, "state": "PAID", "basket": {"a": [1]}}
    assert second == ("shop:late", {"id": 1})
    assert fired.of("shop:l*") == [{"id": 1}]


def test_what_did_not_fire_is_said_with_what_did():
    order = Provider("shop").probe("order")
    with pytest.raises(AssertionError, match=r"shop:done did not fire; shop:\* fired 2 times, not 3 \(fired: shop:or"):
        with expect_probes("shop:order", "shop:done", {"shop:*": 3}):
            order()
            order()
    with pytest.raises(AssertionError, match="fired: nothing"):
        with expect_probes("shop:order"):
            pass
    with expect_probes({"shop:order": 2, "shop:done": 0}):
        order()
        order()


def test_an_exception_of_the_block_comes_first():
    with pytest.raises(KeyError):
        with expect_probes("shop:order"):
            raise KeyError


def test_wrong_calls_are_wrong_here_too():
    order = Provider("shop").probe("order", id="u8")
    with record_probes() as fired, pytest.raises(OverflowError):
        order(256)
    assert fired == []


def test_recordings_in_recordings():
    order = Provider("shop").probe("order", id="u8")
    with record_probes() as outer:
        order(1)
        with record_probes() as inner:
            order(2)
        order(3)
    order(4)
    assert [each["id"] for each in outer.of("shop:order")] == [1, 2, 3]
    assert [each["id"] for each in inner.of("shop:order")] == [2]


def test_all_threads():
    order = Provider("shop").probe("order", id="u64")
    with expect_probes({"shop:order": 4 * 997}) as fired:
        threads = [threading.Thread(target=lambda at=at: [order(at * 1000 + n) for n in range(997)]) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({each["id"] for each in fired.of("*")}) == 4 * 997


def test_a_provider_that_nobody_holds_any_more_but_its_probe():
    order = Provider("shop").probe("order", state=State)
    gc.collect()
    with record_probes() as fired:
        order(State.NEW)
    assert fired == [("shop:order", {"state": "NEW"})]
