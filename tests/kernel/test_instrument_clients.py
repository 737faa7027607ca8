"""Every HTTP client against a real server: its requests are seen once, whatever becomes of them."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]

# Defines `ask(method, path, body=None, timeout=30)`, which returns the status after all redirects or raises, and reads
# the body. Async clients define it as a coroutine function.
CLIENTS = {
    "urllib": """
import urllib.error, urllib.request
def ask(method, path, body=None, timeout=30):
    try:
        request = urllib.request.Request(base + path, body, method=method)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            response.read()
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
""",
    "urllib3": """
import urllib3
pool = urllib3.PoolManager(maxsize=8, retries=urllib3.Retry(connect=0, read=0))
def ask(method, path, body=None, timeout=30):
    response = pool.request(method, base + path, body=body, timeout=timeout, preload_content=False)
    with response:
        response.read()
        return response.status
""",
    "requests": """
import requests, threading
local = threading.local()
def ask(method, path, body=None, timeout=30):
    if not hasattr(local, "session"):
        local.session = requests.Session()
    response = local.session.request(method, base + path, data=body, timeout=timeout, stream=True)
    with response:
        for piece in response.iter_content(100):
            pass
        return response.status_code
""",
    "httpx": """
import httpx
client = httpx.Client(follow_redirects=True)
def ask(method, path, body=None, timeout=30):
    with client.stream(method, base + path, content=body, timeout=timeout) as response:
        for piece in response.iter_bytes():
            pass
        return response.status_code
""",
    "httpx-async": """
import httpx
client = None
async def ask(method, path, body=None, timeout=30):
    global client
    client = client or httpx.AsyncClient(follow_redirects=True)
    async with client.stream(method, base + path, content=body, timeout=timeout) as response:
        async for piece in response.aiter_bytes():
            pass
        return response.status_code
""",
    "aiohttp": """
import aiohttp
client = None
async def ask(method, path, body=None, timeout=30):
    global client
    client = client or aiohttp.ClientSession()
    timeout = aiohttp.ClientTimeout(timeout)
    async with client.request(method, base + path, data=body, timeout=timeout) as response:
        async for piece in response.content.iter_any():
            pass
        return response.status
""",
}
# What those requests raise that get no response.
ERRORS = {
    "urllib": {("/slow", "TimeoutError"), ("/hangup", "RemoteDisconnected"), ("/refused", "ConnectionRefusedError")},
    "urllib3": {("/slow", "TimeoutError"), ("/hangup", "RemoteDisconnected"), ("/refused", "NewConnectionError")},
    "requests": {("/slow", "TimeoutError"), ("/hangup", "RemoteDisconnected"), ("/refused", "NewConnectionError")},
    "httpx": {("/slow", "ReadTimeout"), ("/hangup", "RemoteProtocolError"), ("/refused", "ConnectError")},
    "httpx-async": {
        *(("/slow", "ReadTimeout"), ("/slow", "CancelledError")),
        *(("/hangup", "RemoteProtocolError"), ("/refused", "ConnectError")),
    },
    "aiohttp": {
        *(("/slow", "TimeoutError"), ("/slow", "CancelledError")),
        *(("/hangup", "ServerDisconnectedError"), ("/refused", "ClientConnectorError")),
    },
}
# 1,879 requests, of which 121 are redirected to another: 2,000 responses. Then some that get none. Prints what it saw.
LOAD = """
import asyncio, collections, concurrent.futures, inspect, json, sys, threading, time
base, refused = sys.argv[1:3]
exec(sys.argv[3])
from usdtkit.instrument import watcher
seen = collections.Counter()

def work():
    for number in range(1458):
        yield "GET", f"/order/{number % 10}?secret=1"
    for number in range(200):
        yield "POST", "/order/3"
    for number in range(121):
        yield "GET", "/redirect"
    for number in range(100):
        yield "GET", "/stream"

async def asked(method, path, **more):
    status = ask(method, path, b"body" * 1000 if method == "POST" else None, **more)
    seen[method, path.partition("?")[0], await status if inspect.isawaitable(status) else status] += 1

async def no_response():
    global base
    for path in ("/slow", "/slow", "/hangup"):
        try:
            await asked("POST", path, timeout=0.6)
        except Exception as error:
            seen["POST", path, "raised"] += 1
    if inspect.iscoroutinefunction(ask):
        for _ in range(2):
            task = asyncio.create_task(asked("GET", "/slow"))
            await asyncio.sleep(0.5)  # until the server has it
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            seen["GET", "/slow", "raised"] += 1
    for base in (refused, refused.replace("http", "https")):
        try:
            await asked("GET", "/refused")
        except Exception as error:
            seen["GET", "/refused", "raised"] += 1

async def many():
    if inspect.iscoroutinefunction(ask):
        todo = work()
        async def worker():
            for each in todo:
                await asked(*each)
        await asyncio.gather(*(worker() for _ in range(8)))
    else:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda each: asyncio.run(asked(*each)), work()))
    await no_response()
    close = getattr(globals().get("client"), "aclose", None) or getattr(globals().get("client"), "close", None)
    closed = close and close()
    if inspect.isawaitable(closed):
        await closed

print("ready", flush=True)
sys.stdin.readline()
while not watcher.traced(["http:request__start", "http:request__done"]):
    time.sleep(0.001)
asyncio.run(many())
print("seen", json.dumps([[*key, count] for key, count in seen.items()]), flush=True)
sys.stdin.readline()
"""


class Server(ThreadingHTTPServer):
    """Answers by the path, and counts the requests that it gets by method and path."""

    daemon_threads = False  # they are joined
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.counts = Counter()
        self.lock = threading.Lock()
        self.ending = threading.Event()

    def handle_error(self, request, client_address):
        """A client that has gone is no error of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_any(self):
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.counts[self.command, path] += 1
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/slow":
            self.server.ending.wait(60)
        if self.command == "CONNECT":
            self.answer(403)
        elif path == "/hangup":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif path == "/redirect":
            self.answer(302, ("Location", "/order/0"))
        elif path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n" * 7 + b"0\r\n\r\n")
        else:
            number = int(path[-1]) if path[-1].isdigit() else 0
            self.answer(201 if self.command == "POST" else {7: 404, 8: 500}.get(number, 200))

    do_GET = do_POST = do_CONNECT = handle_any

    def answer(self, status, *headers):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", "2")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.ending.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def refused():
    """The URL of a port at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def run(spawn, text, *arguments):
    command = [sys.executable, "-m", "usdtkit.run", "--with", "http", "-c", text, *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return spawn(command, env=variables, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client(client, server, refused, spawn, wait_for_line):
    base = f"http://127.0.0.1:{server.server_port}"
    process = run(spawn, LOAD, base, refused, CLIENTS[client])
    wait_for_line(process, "ready", timeout=60)
    with trace.Session(pid=process.pid, string_size=64) as session:
        started = session.usdt("http:request__start").count("method", "host", "port", "path")
        session.usdt("http:request__done").emit("method", "port", "path", "status", "latency_ns", "error")
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        told = wait_for_line(process, "seen", timeout=120).removeprefix("seen ")
        seen = Counter({tuple(key): count for *key, count in json.loads(told)})
        events = list(session.drain())
        starts = started.read()
        summary = session.summary()
    process.stdin.close()
    assert process.wait(20) == 0
    # What the client says that it got, as responses on the wire: a redirect is one more.
    redirects = seen.pop(("GET", "/redirect", 200))
    expected = Counter({key: count for key, count in seen.items() if key[2] != "raised"})
    expected += Counter({("GET", "/redirect", 302): redirects, ("GET", "/order/0", 200): redirects})
    answered = Counter((event.method, event.path, event.status) for event in events if event.status)
    assert answered == expected
    assert sum(answered.values()) == 2000
    # What the server has got, also what it has not answered in time, and what it cannot have got.
    failed = Counter((event.method, event.path) for event in events if not event.status)
    of_server = Counter((event.method, event.path) for event in events if event.port == server.server_port)
    assert of_server == server.counts
    raised = Counter({key[:2]: count for key, count in seen.items() if key[2] == "raised"})
    assert failed == raised
    assert starts == {
        (method, "127.0.0.1", port, path): count
        for (method, port, path), count in Counter((event.method, event.port, event.path) for event in events).items()
    }
    assert (summary.lost, summary.rejected) == (0, 0)
    assert all((event.status == 0) == bool(event.error) for event in events)
    assert {(event.path, event.error) for event in events if event.error} == ERRORS[client]


# Each of these makes two requests by a proxy: one that it sends on, and one for a tunnel, which it does not give.
BY_PROXY = {
    "urllib": """
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
ask = lambda url: opener.open(url).read()
""",
    "requests": """
import requests
ask = lambda url: requests.get(url, proxies={"http": proxy, "https": proxy})
""",
    "httpx": """
import httpx
ask = lambda url: httpx.get(url, proxy=proxy)
""",
    "aiohttp": """
import aiohttp, asyncio
async def asked(url):
    async with aiohttp.request("GET", url, proxy=proxy) as response:
        await response.read()
ask = lambda url: asyncio.run(asked(url))
""",
}
ASK_BY_PROXY = """
import sys, time
from usdtkit.instrument import watcher
proxy = sys.argv[1]
exec(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while not watcher.traced(["http:request__done"]):
    time.sleep(0.001)
for url in ("http://ada:secret@shop.invalid/order/1?secret=1", "https://shop.invalid/order/2?secret=1"):
    try:
        ask(url)
    except Exception as error:
        print(type(error))
print("done", flush=True)
"""


@pytest.mark.parametrize("client", BY_PROXY)
def test_a_client_behind_a_proxy(client, server, spawn, wait_for_line):
    """The host and path are those of the request, wherever it is sent, and nothing secret is in them."""
    proxy = f"http://user:secret@127.0.0.1:{server.server_port}"
    process = run(spawn, ASK_BY_PROXY, proxy, BY_PROXY[client])
    wait_for_line(process, "ready", timeout=60)
    with trace.Session(pid=process.pid, string_size=64) as session:
        session.usdt("http:request__done").emit("host", "port", "path", "status")
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for_line(process, "done", timeout=60)
        events = [(event.host, event.port, event.path, event.status) for event in session.drain()]
    assert process.wait(20) == 0
    # requests has a tunnel before it begins the request.
    tunnelled = [] if client == "requests" else [("shop.invalid", 443, "/order/2", 0)]
    assert events == [("shop.invalid", 80, "/order/1", 200), *tunnelled]
