"""Tests of a service's own probes with pytest, without the kernel and without root."""

from service import handle

from usdtkit.testing import expect_probes


def test_an_order_that_is_paid():
    with expect_probes({"shop:order__start": 1, "shop:charge__done": 1, "shop:order__done": 1}) as fired:
        handle(3, "ada")
    assert fired.of("shop:order__start") == [{"order_id": 3, "customer": "ada"}]
    assert fired.of("shop:order__done") == [{"order_id": 3, "state": "PAID", "amount": 39.0}]


def test_an_order_that_is_refused():
    with expect_probes("shop:order__done") as fired:
        handle(8, "ada")
    assert [done["error"] for done in fired.of("shop:charge__done")] == ["ValueError"]
    assert fired.of("shop:order__done")[0]["state"] == "REFUSED"
