"""Ready-made probes of what a service does besides serving: counts agree with its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "usdtkit.run"]


@pytest.fixture
def service(spawn, tmp_path, wait_for_line):
    """service(up, command…) -> a process that runs the command with the ready-made probes, and has said `up`."""

    def start(up, *command):
        variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        process = spawn([*RUN, *command], env=variables, cwd=tmp_path, stderr=subprocess.STDOUT)
        wait_for_line(process, up, timeout=60)
        return process

    return start


# Waits until somebody traces, does what it does, and prints what it counted itself.
LIBRARIES = """
import asyncio, gc, json, logging, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from usdtkit.instrument import watcher

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204 if self.path == "/a" else 404)
        self.end_headers()
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", server.server_port, flush=True)
wanted = set(sys.stdin.readline().strip().split(","))
while not wanted <= watcher.traced(wanted):
    time.sleep(0.001)

shop = logging.getLogger("shop.orders")
logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
for number in range(97):
    shop.info("order %d", number)
    shop.debug("never")
    shop.error("bad %s", "order")

for path in ["/a"] * 31 + ["/b"] * 7:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}{path}").read()
    except urllib.error.HTTPError as error:
        assert error.code == 404
import urllib3
for _ in range(11):
    assert urllib3.request("GET", f"http://127.0.0.1:{server.server_port}/a").status == 204

async def step():
    await asyncio.sleep(0)
    await asyncio.sleep(0)

async def blocks():
    time.sleep(0.03)

async def fails():
    raise ValueError

async def main():
    await asyncio.gather(*(step() for _ in range(31)))
    await asyncio.gather(blocks(), fails(), return_exceptions=True)
    await asyncio.sleep(0.001)

asyncio.run(main())

gc.disable()
for _ in range(13):
    gc.collect()

lock = threading.Lock()
def waits():
    with lock:
        pass
for _ in range(5):
    with lock:
        thread = threading.Thread(target=waits)
        thread.start()
        time.sleep(0.02)
    thread.join()
print("done", flush=True)
sys.stdin.readline()
while watcher.traced(wanted):
    time.sleep(0.001)
import http.client
replaced = [
    logging.Logger.handle, http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse,
    asyncio.BaseEventLoop.create_task, asyncio.Handle._run,
]
assert not [function for function in replaced if hasattr(function, "__wrapped__")]
assert not gc.callbacks
"""


def test_what_libraries_do(service, wait_for_line):
    process = service("ready", "--with", "asyncio,gc,http,locks,logging", "-c", LIBRARIES)
    with trace.Session(pid=process.pid, string_size=48) as session:
        records = session.usdt("logging:record").count("logger", "level", "message")
        answers = session.usdt("http:request__done").count("method", "path", "status")
        tasks = session.usdt("asyncio:task__create").count("coroutine")
        ends = session.usdt("asyncio:task__done").count("coroutine", "error")
        steps = session.usdt("asyncio:task__step").count("coroutine")
        callbacks = session.usdt("asyncio:callback")
        slow = callbacks.where(trace.arg("latency_ns") > trace.ms(25)).count("name")
        lags = session.usdt("asyncio:lag").count()
        collections = session.usdt("gc:collection").count("generation")
        waits = session.usdt("locks:wait").where(trace.arg("latency_ns") > trace.ms(5)).count("made", "acquired")
        session.start()
        watched = "locks:wait,logging:record,http:request__done,asyncio:task__create,asyncio:lag,gc:collection"
        process.stdin.write(f"{watched}\n")
        process.stdin.flush()
        wait_for_line(process, "done", timeout=120)
        messages = records.read()
        assert sum(count for (_, level, _), count in messages.items() if level == 20) == 97
        assert messages["shop.orders", 40, "bad order"] == 97
        assert len([1 for (logger, _, _) in messages if logger == "shop.orders"]) == 98
        assert answers.read() == {("GET", "/a", 204): 42, ("GET", "/b", 404): 7}
        assert {name: count for (name,), count in tasks.read().items()} == {
            "main": 1,
            "step": 31,
            "blocks": 1,
            "fails": 1,
        } | {name: count for (name,), count in tasks.read().items() if "shutdown" in name}
        ended = ends.read()
        assert (ended["step", ""], ended["fails", "ValueError"], ended["blocks", ""]) == (31, 1, 1)
        assert steps.read()[("step",)] == 3 * 31
        assert slow.read()[("blocks",)] == 1
        assert sum(lags.read().values()) >= 1
        assert collections.read()[(2,)] == 13
        waited = waits.read()
        assert sum(waited.values()) == 5 and all(acquired for _, acquired in waited), waited
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.wait(20) == 0, process.stdout.read()
