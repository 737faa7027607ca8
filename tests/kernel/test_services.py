"""Services as people run them: one attach by path, before the start, sees what every worker fires."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from usdtkit import trace

pytestmark = pytest.mark.machine

REQUESTS, WORKERS = 211, 3

# As a WSGI and an ASGI application, and as gunicorn's configuration.
WEB = """
import os
from usdtkit import Provider

shop = Provider("shop", nop=os.environ["NOP"])
worker = shop.probe("worker", number="u32")
request = shop.probe("request", path="str", worker="u32")

def wsgi(environ, start_response):
    with shop.span("answer", path=environ["PATH_INFO"]):
        request(environ["PATH_INFO"], os.getpid())
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

def post_worker_init(_):
    worker(os.getpid())

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            worker(os.getpid())
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    request(scope["path"], os.getpid())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

POOL = """
import multiprocessing, os, sys, web

def work(number):
    for _ in range(97):
        web.request(f"/{number}", os.getpid())
    return os.getpid()

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        pids = pool.map_async(work, range(7), 1).get(60)
    print(*pids)
"""


@pytest.fixture(params=["safe", "fast"])
def environment(tmp_path, request):
    (tmp_path / "web.py").write_text(WEB)
    (tmp_path / "pool.py").write_text(POOL)
    (tmp_path / "probes").mkdir()
    root = str(tmp_path)
    paths = os.pathsep.join([root, *filter(None, sys.path)])
    return os.environ | {
        "NOP": request.param,
        "USDTKIT_DIR": f"{root}/probes",
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
def built(environment):
    script = [sys.executable, "-c", "import web; print(web.shop.build())"]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout.strip()


class Seen:
    """The counts of one session that is attached by path."""

    def __init__(self, session, path):
        self.workers = session.usdt("shop:worker", path).count("number")
        self.requests = session.usdt("shop:request", path).count("worker", "path", "pid")
        session.start()


@pytest.fixture
def seen(built):
    with trace.Session() as session:
        yield Seen(session, built)


def get(address, path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address))
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: shop\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.") and b" 200 " in answer.partition(b"\n")[0] and answer.endswith(b"ok"), answer


def check(seen, process, address):
    """Each request was fired by a worker, and each worker said that it is there."""
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda number: get(address, f"/order/{number}"), range(REQUESTS)))
    fired = seen.requests.read()
    assert sum(fired.values()) == len(fired) == REQUESTS
    assert {path for _, path, _ in fired} == {f"/order/{number}" for number in range(REQUESTS)}
    deadline = time.monotonic() + 30
    # One may still be starting when the others have served every request.
    while len(workers := {number for (number,) in seen.workers.read()}) < WORKERS:
        assert time.monotonic() < deadline
    assert {worker for worker, _, _ in fired} <= workers
    assert all(worker == pid for worker, _, pid in fired)
    assert process.pid not in workers


@pytest.mark.parametrize("preload", [["--preload"], []], ids=["preloaded", "not"])
def test_gunicorn(seen, environment, spawn, tmp_path, wait_for_line, preload):
    address = tmp_path / "socket"
    (tmp_path / "hooks.py").write_text("from web import post_worker_init\n")
    options = ["--workers", WORKERS, "--bind", f"unix:{address}", "--config", tmp_path / "hooks.py", *preload]
    command = [sys.executable, "-m", "gunicorn", *options, "web:wsgi"]
    process = spawn(command, env=environment, cwd=tmp_path, stderr=subprocess.STDOUT)
    for _ in range(WORKERS):
        wait_for_line(process, "Booting worker")
    check(seen, process, address)
    process.terminate()
    assert process.wait(30) == 0


def test_uvicorn(seen, environment, spawn, tmp_path, wait_for_line):
    address = tmp_path / "socket"
    options = ["--workers", WORKERS, "--uds", address, "--no-access-log"]
    command = [sys.executable, "-m", "uvicorn", *options, "web:asgi"]
    process = spawn(command, env=environment, cwd=tmp_path, stderr=subprocess.STDOUT)
    for _ in range(WORKERS):
        wait_for_line(process, "Application startup complete")
    check(seen, process, address)
    process.terminate()
    assert process.wait(30) in (0, -15)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(seen, environment, tmp_path, method):
    command = [sys.executable, tmp_path / "pool.py", method]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    fired = seen.requests.read()
    assert sum(fired.values()) == 7 * 97
    assert {path for _, path, _ in fired} == {f"/{number}" for number in range(7)}
    assert {worker for worker, _, _ in fired} == set(map(int, done.stdout.split()))


def test_a_prefork_server_that_restarts_its_workers(seen, environment, spawn, tmp_path, wait_for_line):
    address = tmp_path / "socket"
    options = ["--workers", 1, "--max-requests", 5, "--bind", f"unix:{address}", "--preload"]
    command = [sys.executable, "-m", "gunicorn", *options, "web:wsgi"]
    process = spawn(command, env=environment, cwd=tmp_path, stderr=subprocess.STDOUT)
    wait_for_line(process, "Booting worker")
    for number in range(23):
        get(address, f"/{number}")
    fired = seen.requests.read()
    assert sum(fired.values()) == 23
    assert len({worker for worker, _, _ in fired}) >= 4
