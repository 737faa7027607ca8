"""Customers of service.py: `python client.py URL [--orders N] [--threads N]`. Prints what it sent and what came back.

The orders are the same on each run: most are small, some large, some too many for the stock, and some are not valid
orders.
"""

import argparse
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

CUSTOMERS = ("ada", "barbara", "edsger", "grace", "katherine", "ken", "Zoë")


def make_orders(count):
    """The bodies of `count` orders."""
    chance = random.Random(997)
    for number in range(count):
        if number % 50 == 49:
            yield b"two teas, please"
        else:
            item = chance.choices(("tea", "coffee", "cocoa"), (6, 3, 1))[0]
            order = {
                "customer": chance.choice(CUSTOMERS),
                "item": item,
                "quantity": min(500, 2 ** chance.randrange(10)),
            }
            yield json.dumps(order).encode()


def send(address, orders):
    """Send the orders over one connection; how often each status came back."""
    statuses = Counter()
    connection = HTTPConnection(address)
    for order in orders:
        connection.request("POST", "/orders", order, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            response.read()
            statuses[response.status] += 1
    connection.close()
    return statuses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--orders", type=int, default=997, metavar="N")
    parser.add_argument("--threads", type=int, default=8, metavar="N")
    options = parser.parse_args()
    orders = list(make_orders(options.orders))
    address = urlsplit(options.url).netloc
    with ThreadPoolExecutor(options.threads) as pool:
        shares = (orders[start :: options.threads] for start in range(options.threads))
        statuses = sum(pool.map(lambda share: send(address, share), shares), Counter())
    print(
        f"sent {options.orders} orders:", ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
    )


if __name__ == "__main__":
    main()
