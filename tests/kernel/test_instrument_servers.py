"""Web frameworks under every server, under load: each request is seen once, with the client's status and its route."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from processes import unix_connection

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "programs" / "web_apps"
REQUESTS, CLIENTS, GONE = 2000, 8, 3
# Of each framework: a request to a mounted application, and what is declared.
FLASK = "/mounted/item/", "/{}/<int:number>", "/mounted/item/<int:number>"
STARLETTE = "/mounted/item/", "/{}/{{number:int}}", "/mounted/item/{number:int}"
FASTAPI = "/mounted/item/", "/{}/{{number}}", "/mounted/item/{number}"
DJANGO = "/shops/main/item-", "/{}/<int:number>", "/shops/<slug:shop>/item-(?P<number>[0-9]+)$"
GUNICORN = ["gunicorn", "--bind", "unix:{}"]
UVICORN = ["uvicorn", "--no-access-log", "--uds", "{}"]
HYPERCORN = ["hypercorn", "--bind", "unix:{}"]
WAITRESS = ["waitress", "--unix-socket={}"]
SERVERS = {
    "gunicorn-flask": ("wsgi", FLASK, [*GUNICORN, "--workers", "2", "flask_app:app"], "Booting worker", 2),
    "gunicorn-threads-django": ("wsgi", DJANGO, [*GUNICORN, "--threads", "4", "shop.wsgi"], "Booting worker", 1),
    "gunicorn-uvicorn-fastapi": (
        "asgi",
        FASTAPI,
        [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "fastapi_app:app"],
        "startup complete",
        1,
    ),
    "gunicorn-asgi-starlette": (
        "asgi",
        STARLETTE,
        [*GUNICORN, "-k", "asgi", "starlette_app:app"],
        "Booting worker",
        1,
    ),
    "gunicorn-gevent-flask": ("wsgi", FLASK, [*GUNICORN, "-k", "gevent", "flask_app:app"], "Booting worker", 1),
    "werkzeug-flask": ("wsgi", FLASK, ["werkzeug_server", "{}"], "Press CTRL", 1),
    "waitress-flask": ("wsgi", FLASK, [*WAITRESS, "flask_app:app"], "Serving on", 1),
    "uvicorn-starlette": ("asgi", STARLETTE, [*UVICORN, "starlette_app:app"], "Uvicorn running", 1),
    "uvicorn-django": ("asgi", DJANGO, [*UVICORN, "shop.asgi:application"], "Uvicorn running", 1),
    "hypercorn-fastapi": ("asgi", FASTAPI, [*HYPERCORN, "fastapi_app:app"], "Running on", 1),
    "hypercorn-flask": ("wsgi", FLASK, [*HYPERCORN, "flask_app:app"], "Running on", 1),
    "aiohttp": ("web", FASTAPI, ["aiohttp.web", "-U", "{}", "aiohttp_app:make"], "Running on", 1),
}


def what(number, mounted):
    """Method, path and status of a request."""
    if number % 100 == 9:
        return "GET", f"/fails/{number}", 500
    if number % 100 == 5:
        return "GET", f"/stream/{number}", 200
    if number % 100 == 1:
        return "GET", f"{mounted}{number}", 200
    if number % 100 == 2:
        return "GET", f"/nothing/{number}", 404
    method = "POST" if number % 10 == 3 else "GET"
    return method, f"/order/{number}", {3: 201, 7: 404}.get(number % 10, 200)


def load(address, mounted, requests):
    """Nanoseconds of each request until its last byte, by what it was."""

    def ask(numbers):
        connection = unix_connection(address)
        latencies = {}
        for number in numbers:
            method, path, status = asked = what(number, mounted)
            began = time.monotonic_ns()
            connection.request(method, f"{path}?secret=1", b"body" if method == "POST" else None)
            with connection.getresponse() as response:
                assert response.status == status, asked
                body = response.read()
            if path.startswith("/stream"):
                assert body.count(b"\n") == number
            latencies[asked] = time.monotonic_ns() - began
            if status == 500:  # after which some servers close the connection, and say so or not
                connection.close()
        connection.close()
        return latencies

    with ThreadPoolExecutor(CLIENTS) as clients:
        parts = clients.map(ask, [range(first, requests, CLIENTS) for first in range(CLIENTS)])
        return {asked: latency for part in parts for asked, latency in part.items()}


def go_away(address):
    """Ask for what takes 500 ms, and close the connection at once."""
    connection = unix_connection(address, timeout=0.1)
    connection.request("GET", "/slow/500")
    with suppress(TimeoutError):
        connection.getresponse()
    connection.close()


def wait_until_hooked(session, address, workers, mounted, route):
    """Ask until every worker knows the exception behind a 500, and a route that is mounted. Returns what was asked."""
    paths = {"/fails/0", f"{mounted}0"}
    hooked = set()

    def note(event):
        if event.error or event.route == route:
            hooked.add((event.pid, event.path))

    while len(hooked) < workers * len(paths):
        for path in paths:
            connection = unix_connection(address)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
        session.poll(note, timeout=5)
    return paths


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """One for the files of probes: other tests leave other versions of these providers in the one that all share."""
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path / "probes"))


@pytest.fixture
def serve(spawn, tmp_path, wait_for_line, request):
    """serve(command, up, times) -> the address of a server with probes, run in the directory of its app."""
    running = []

    def start(command, up, times=1):
        address = tmp_path / "socket"
        django = "shop." in command[-1]
        directory = request.getfixturevalue("django_project") if django else APPS
        run = [sys.executable, "-m", "usdtkit.run", "--with", "wsgi,asgi,web", "-m"]
        words = [word.format(address) for word in command]
        variables = os.environ | {"PYTHONPATH": f"{ROOT}:{directory}", "PYTHONUNBUFFERED": "1"}
        process = spawn([*run, *words], env=variables, cwd=directory, stderr=subprocess.STDOUT)
        for _ in range(times):
            wait_for_line(process, up, timeout=60)
        # It logs the traceback of each 500, and would wait if nobody read that.
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        running.append((process, reader))
        return address

    yield start
    for process, reader in running:
        process.terminate()
        reader.join()


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_and_a_framework(server, serve):
    provider, (mounted, route, route_of_mounted), command, up, times = SERVERS[server]
    address = serve(command, up, times)
    # Whatever else runs on this machine may have another version of the provider.
    (path,) = Path(os.environ["USDTKIT_DIR"]).glob(f"{provider}-*.so")
    with trace.Session(string_size=64, duration=120) as session:
        started = session.usdt(f"{provider}:request__start", path=path).count("path")
        done = session.usdt(f"{provider}:request__done", path=path)
        done.emit("method", "path", "route", "status", "latency_ns", "error")
        session.start()
        before = wait_until_hooked(session, address, times, mounted, route_of_mounted)
        asked = load(address, mounted, REQUESTS)
        for _ in range(GONE):
            go_away(address)
        events = []
        # A request ends on the server just after its client has the answer, or much later if that has gone away.
        for event in session:
            if event.path not in before:
                events.append(event)
            if len(events) == REQUESTS + GONE:
                break
        starts = {path: count for (path,), count in started.read().items() if path not in before}
        summary = session.summary()
    assert (summary.lost, summary.rejected) == (0, 0)
    gone = [event for event in events if event.path == "/slow/500"]
    seen = {(event.method, event.path, event.status): event for event in events if event.path != "/slow/500"}
    assert (len(gone), len(seen)) == (GONE, REQUESTS)
    assert starts == Counter(event.path for event in events)
    assert seen.keys() == asked.keys()
    expected = {"order": route.format("order"), "fails": route.format("fails"), "stream": route.format("stream")}
    expected |= {"nothing": "", mounted.split("/")[1]: route_of_mounted}
    assert {(path.split("/")[1], event.route) for (_, path, _), event in seen.items()} == set(expected.items())
    assert {event.route for event in gone} == {route.format("slow")}
    errors = Counter((event.status, event.error) for event in seen.values() if event.error)
    assert errors == {(500, "ValueError"): REQUESTS // 100}
    # The application's part lies within the client's time; its end, after the last byte, may come a moment later.
    within = sum(event.latency_ns <= asked[key] for key, event in seen.items())
    assert within > 0.7 * REQUESTS
    assert len({event.pid for event in events}) == times


def raw(address, path):
    """All that a server answers, but for the time of day."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date")], body


@pytest.mark.parametrize("server", ["gunicorn-flask", "waitress-flask"])
def test_traced_bodies_are_sent_as_untraced_ones(server, serve):
    """The server's wrapper of a file, which it sends in a way of its own; a generator, without a length; one piece."""
    _, _, command, up, times = SERVERS[server]
    address = serve(command, up, times)
    paths = ["/file", "/stream/3", "/stream/0", "/order/1"]
    untraced = [raw(address, path) for path in paths]
    with trace.Session(string_size=64, duration=60) as session:
        (file,) = Path(os.environ["USDTKIT_DIR"]).glob("wsgi-*.so")
        session.usdt("wsgi:request__done", path=file).emit("path", "status")
        session.start()
        assert [raw(address, path) for path in paths] == untraced
        events = [(event.path, event.status) for _, event in zip(paths, session, strict=False)]
    assert sorted(events) == sorted((path, 200) for path in paths)


def test_a_background_task_is_no_part_of_the_latency(serve):
    address = serve([*UVICORN, "fastapi_app:app"], "Uvicorn running")
    with trace.Session(string_size=64, duration=60) as session:
        (file,) = Path(os.environ["USDTKIT_DIR"]).glob("asgi-*.so")
        session.usdt("asgi:request__done", path=file).emit("path", "route", "status", "latency_ns")
        session.start()
        raw(address, "/background/3000")
        event = next(iter(session))
    assert (event.path, event.route, event.status) == ("/background/3000", "/background/{number}", 200)
    assert event.latency_ns < 2_900_000_000


H2 = """
import asyncio, collections, sys, time
import httpx
from usdtkit.instrument import watcher
seen = collections.Counter()

async def ask(numbers):
    transport = httpx.AsyncHTTPTransport(http1=False, http2=True, uds=sys.argv[1])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        async def worker():
            for number in numbers:
                response = await client.get(f"/order/{number}")
                assert response.http_version == "HTTP/2"
                seen[response.status_code] += 1
        await asyncio.gather(*(worker() for _ in range(8)))

async def main():
    for first in range(0, 2000, 500):  # hypercorn ends a connection after 1,000 requests
        await ask(iter(range(first, first + 500)))
    print(sorted(seen.items()), flush=True)

print("ready", flush=True)
sys.stdin.readline()
while not watcher.traced(["http:request__start", "http:request__done"]):
    time.sleep(0.001)
asyncio.run(main())
"""


def test_both_ends_of_http2(serve, spawn, wait_for_line):
    """httpx sends many requests at once through one connection to hypercorn."""
    address = serve([*HYPERCORN, "starlette_app:app"], "Running on")
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    client = spawn([sys.executable, "-m", "usdtkit.run", "--with", "http", "-c", H2, address], env=variables)
    wait_for_line(client, "ready", timeout=60)
    with trace.Session(string_size=32, duration=120) as session:
        counts = []
        for provider in ("http", "asgi"):
            (path,) = Path(os.environ["USDTKIT_DIR"]).glob(f"{provider}-*.so")
            counts.append(session.usdt(f"{provider}:request__start", path=path).count())
            counts.append(session.usdt(f"{provider}:request__done", path=path).count("status"))
        session.start()
        client.stdin.write("\n")
        client.stdin.flush()
        assert wait_for_line(client, "[", timeout=60) == "[(200, 1800), (404, 200)]"
        sent, answered, arrived, served = (count.read() for count in counts)
        assert session.summary().lost == 0
    assert sent == arrived == {(): 2000}
    assert answered == served == {(200,): 1800, (404,): 200}
