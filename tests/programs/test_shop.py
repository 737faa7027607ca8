"""The example service, untraced: it answers as its docstring says, and counts what it fires."""

import pytest

pytestmark = pytest.mark.machine


def test_it_takes_orders(shop):
    order = {"customer": "ada", "item": "tea", "quantity": 3}
    assert shop.request("/orders", order) == (201, {"order_id": 1})
    assert shop.request("/orders/1") == (200, {"id": 1, **order})
    assert shop.stats() == {"order__start": 1, "order__done": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"two teas, please",
        b"[" * 100_000,
        b'{"customer": "\\ud800", "item": "tea", "quantity": 1}',
        {"customer": "ada", "item": "tea"},
        {"customer": "ada", "item": "tea", "quantity": -1},
        {"customer": "ada", "item": "tea", "quantity": 10**30},
    ],
)
def test_what_is_no_order_is_answered_and_counted_all_the_same(shop, body):
    assert shop.request("/orders", body) == (400, {"order_id": 1})
    assert shop.stats() == {"order__start": 1, "order__done": 1}


def test_stock_runs_out(shop):
    order = {"customer": "ada", "item": "cocoa", "quantity": 1000}
    assert [shop.request("/orders", order)[0] for _ in range(3)] == [201, 201, 409]
    assert shop.request("/orders/3")[0] == 404


@pytest.mark.parametrize("path", ["/", "/orders/", "/orders/0", "/orders/-1", "/orders/" + "9" * 20, "/stats/x"])
def test_what_is_not_there(shop, path):
    assert shop.request(path)[0] == 404


def test_the_client_sends_all_its_orders(shop):
    answers = shop.send(997, threads=8)
    assert sum(answers.values()) == 997
    assert answers.keys() == {201, 400, 409} and answers[400] == 19
    assert shop.stats() == {"order__start": 997, "order__done": 997}
