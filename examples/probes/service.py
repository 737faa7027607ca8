"""A worker with probes. Run it, and watch it with

usdtkit trace 'shop:order__*'
"""

import enum
import sys
import time

from usdtkit import Provider, argument, u64

shop = Provider("shop")


class State(enum.Enum):
    PAID = 1
    REFUSED = 2


@shop.define
def order__start(order_id: u64, customer: str):
    "An order arrives."


order_done = shop.probe("order__done", order_id="u64", state=State, amount=argument("f64", unit="EUR"))


@shop.traced(order_id="u64")
def charge(order_id, amount):
    if amount > 100:
        raise ValueError("too much")
    return amount


def handle(order_id, customer):
    order__start(order_id, customer)
    try:
        amount, state = charge(order_id, 13.0 * order_id), State.PAID
    except ValueError:
        amount, state = 0.0, State.REFUSED
    order_done(order_id, state, amount)
    return state


def main(orders=10, pause_s=1.0):
    shop.load()
    for order_id in range(1, orders + 1):
        print(order_id, handle(order_id, "ada").name, flush=True)
        time.sleep(pause_s)


if __name__ == "__main__":
    main(*(int(each) for each in sys.argv[1:]))
