"""A small HTTP order service that carries its own probes: `python service.py [PORT]`.

    POST /orders        {"customer": "ada", "item": "tea", "quantity": 3}  →  201 order, 400 bad order, 409 out of stock
    GET /orders/ID      the order, or 404
    GET /stats          how often each probe was fired, to compare with a tracer's counts

The lines that make it traceable are marked (1) to (3). client.py sends orders, and demo.py traces them.
"""

import contextlib
import itertools
import json
import signal
import sqlite3
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from usdtkit import Provider

# (1) Declare the probes: a name, and typed arguments that a tracer can ask for by name.
shop = Provider("shop")
order_start = shop.probe("order__start", doc="An order arrives.", order_id="u64", customer="str")
order_done = shop.probe("order__done", doc="The order is answered.", order_id="u64", status="i32")


class Store:
    """Stock and orders. Every picked piece is a row, so that large orders take longer than small ones."""

    def __init__(self, stock):
        self._lock = threading.Lock()
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._database.executescript("""
            create table stock (item text primary key, left integer not null);
            create table orders (id integer primary key, customer text, item text, quantity integer);
            create table picks (order_id integer, piece integer);
        """)
        self._database.executemany("insert into stock values (?, ?)", stock.items())

    def place(self, order_id, customer, item, quantity):
        """Take the pieces out of stock; False, and nothing is changed, when there are not enough."""
        with self._lock, self._database as database:
            taken = database.execute(
                "update stock set left = left - ?1 where item = ?2 and left >= ?1", (quantity, item)
            ).rowcount
            if taken:
                picks = ((order_id, piece) for piece in range(quantity))
                database.executemany("insert into picks values (?, ?)", picks)
                database.execute("insert into orders values (?, ?, ?, ?)", (order_id, customer, item, quantity))
        return bool(taken)

    def order(self, order_id):
        """The order as a dictionary, or None."""
        with self._lock:
            row = self._database.execute(
                "select customer, item, quantity from orders where id = ?", (order_id,)
            ).fetchone()
        return row and dict(zip(("id", "customer", "item", "quantity"), (order_id, *row), strict=True))


class Service(ThreadingHTTPServer):
    """A thread for each connection; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port=0, stock=None):
        super().__init__(("127.0.0.1", port), Handler)
        self.store = Store(stock or {"tea": 100_000, "coffee": 50_000, "cocoa": 2_000})
        self.order_ids = itertools.count(1)
        self._fired = {"order__start": 0, "order__done": 0}
        self._lock = threading.Lock()

    def count(self, probe):
        with self._lock:
            self._fired[probe.name] += 1

    def stats(self):
        with self._lock:
            return dict(self._fired)


class Handler(BaseHTTPRequestHandler):
    """One connection: reads requests, answers in JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        if self.path != "/orders":
            self.answer(HTTPStatus.NOT_FOUND, error="no such page")
            return
        order_id = next(self.server.order_ids)
        order = parse(body)
        # (2) Fire. This costs about as much as comparing one byte while nobody traces.
        order_start(order_id, order["customer"] if order else "")
        self.server.count(order_start)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        try:
            if order is None:
                status = HTTPStatus.BAD_REQUEST
            elif self.server.store.place(order_id, **order):
                status = HTTPStatus.CREATED
            else:
                status = HTTPStatus.CONFLICT
        finally:  # also when the store fails: each start has its done, in the same thread
            order_done(order_id, status)
            self.server.count(order_done)
        self.answer(status, order_id=order_id)

    def do_GET(self):
        match self.path.split("/"):
            case ["", "stats"]:
                self.answer(HTTPStatus.OK, **self.server.stats())
            case ["", "orders", number] if number.isdecimal() and len(number) < 19:
                order = self.server.store.order(int(number))
                self.answer(HTTPStatus.OK if order else HTTPStatus.NOT_FOUND, **order or {"error": "no such order"})
            case _:
                self.answer(HTTPStatus.NOT_FOUND, error="no such page")

    def answer(self, status, **content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Nothing: the probes tell more."""


def parse(body):
    """The order in a request's body, or None when it is not one."""
    try:
        order = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match order:
        case {"customer": str(customer), "item": str(item), "quantity": int(quantity)}:
            if customer.isprintable() and item.isprintable() and 0 < quantity <= 1000:
                return {"customer": customer, "item": item, "quantity": quantity}
    return None


def main():
    # (3) Make the probes visible now: a tracer then finds them before the first order. The first fire would do it too.
    shop.load()
    service = Service(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print(f"listening on http://127.0.0.1:{service.server_port}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        service.serve_forever()


if __name__ == "__main__":
    main()
