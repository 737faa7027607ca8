"""Tasks of Celery over real brokers: published, received, started and done as often as the client has counted."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "usdtkit.run", "--with", "celery"]

SHOP = """
import os, time
from celery import Celery, signals
from celery.exceptions import Ignore, Reject

broker = os.environ["SHOP_BROKER"]
app = Celery("shop", broker=broker, backend=os.environ.get("SHOP_BACKEND"))
app.conf.update(worker_hijack_root_logger=False, task_default_queue="orders", task_acks_late=True,
    broker_connection_retry_on_startup=True, task_track_started=False, worker_prefetch_multiplier=8)
if broker == "filesystem://":
    folder = os.path.abspath("messages")
    os.makedirs(folder, exist_ok=True)
    app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}

@signals.worker_ready.connect
def is_ready(**_):
    os.write(1, b"worker ready\\n")

@app.task
def add(a, b):
    return a + b

@app.task
def fails(number):
    raise KeyError(number)

@app.task(bind=True, max_retries=5)
def retries(self, number):
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError(number), countdown=0)
    return number

@app.task(bind=True)
def refuses(self, number):
    raise Ignore() if number % 2 else Reject("no", requeue=False)

@app.task
def naps(seconds):
    time.sleep(seconds)
"""

CLIENT = """
import sys, time
import shop
from usdtkit.instrument import watcher
print("ready", flush=True)
sys.stdin.readline()
while len(watcher.traced(["celery:task__start", "celery:task__done"])) < 2:
    time.sleep(0.001)
count = int(sys.argv[1])
results = [shop.add.delay(number, 1) for number in range(count - 97 - 31 - 14)]
results += [shop.fails.delay(number) for number in range(97)]
results += [shop.retries.apply_async((number,), queue="orders") for number in range(31)]
for number in range(14):
    shop.refuses.delay(number)
try:
    shop.add.apply_async((1, object()))
except Exception as error:
    print("refused", type(error).__name__, flush=True)
if shop.app.conf.result_backend:
    values = [result.get(timeout=120, propagate=False) for result in results]
    numbers = [value for value in values if isinstance(value, int)]
    print("answers", sum(numbers), sum(isinstance(value, KeyError) for value in values), flush=True)
print("done", flush=True)
"""


@pytest.fixture
def celery(spawn, tmp_path, wait_for_line):
    """celery(pool, **variables) -> (worker, client): a ready worker with that pool, and a client that waits."""

    def start(pool, count, *options, **variables):
        (tmp_path / "shop.py").write_text(SHOP)
        more = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONUNBUFFERED": "1", "C_FORCE_ROOT": "1"}
        running = {"env": os.environ | more | variables, "cwd": tmp_path, "stderr": subprocess.STDOUT}
        command = ["-m", "celery", "-A", "shop", "worker", "--pool", pool, "--without-gossip", "--without-mingle"]
        worker = spawn([*RUN, *command, "--loglevel", "critical", *options], **running)
        wait_for_line(worker, "worker ready", timeout=60)
        client = spawn([*RUN, "-c", CLIENT, str(count)], **running)
        wait_for_line(client, "ready", timeout=60)
        return worker, client

    return start


def say(process):
    process.stdin.write("\n")
    process.stdin.flush()


def drained(session, enough):
    """Events until enough(events), for at most a minute."""
    events, deadline = [], time.monotonic() + 120
    while not enough(events) and time.monotonic() < deadline:
        events += session.drain()
        time.sleep(0.05)
    return events


@pytest.mark.parametrize(
    ("pool", "broker", "count"),
    [
        ("prefork", "redis", 2000),
        ("solo", "filesystem", 151),
        ("threads", "redis", 151),
        ("gevent", "redis", 151),
        ("eventlet", "redis", 151),
    ],
)
def test_every_task(celery, redis_server, wait_for_line, pool, broker, count):
    redis = f"redis+socket://{redis_server}"
    where = {"SHOP_BROKER": redis, "SHOP_BACKEND": redis} if broker == "redis" else {"SHOP_BROKER": "filesystem://"}
    worker, client = celery(pool, count, "--concurrency", "2", **where)
    added = count - 97 - 31 - 14
    with trace.Session(string_size=48) as session:
        sent = session.usdt("celery:task__publish__start").count("pid", "task", "queue")
        taken = session.usdt("celery:task__publish__done").count("pid", "task", "error")
        received = session.usdt("celery:task__received").count("pid", "task", "queue", "retries")
        session.usdt("celery:task__start").emit("pid", "task", "id", "queue", "retries", "wait_ns")
        session.usdt("celery:task__done").emit("pid", "task", "id", "retries", "latency_ns", "state", "error")
        session.start()
        say(client)
        events = drained(session, lambda events: len(events) >= 2 * (count + 62))
        assert session.summary().lost == 0
        wait_for_line(client, "refused EncodeError")
        if broker == "redis":
            said = wait_for_line(client, "answers", timeout=60).split()
            assert said == ["answers", str(sum(range(1, added + 1)) + sum(range(31))), "97"]
        wait_for_line(client, "done", timeout=60)
        assert client.wait(20) == 0
        names = {"shop.add": added + 1, "shop.fails": 97, "shop.retries": 31, "shop.refuses": 14}
        published = {task: each for (pid, task, queue), each in sent.read().items() if pid == client.pid}
        assert published == names
        assert {(task, error): each for (pid, task, error), each in taken.read().items() if pid == client.pid} == {
            ("shop.add", ""): added,
            ("shop.add", "EncodeError"): 1,
            ("shop.fails", ""): 97,
            ("shop.retries", ""): 31,
            ("shop.refuses", ""): 14,
        }
        assert {queue for _, _, queue in sent.read()} == {"orders"}
        got = {key[1:]: each for key, each in received.read().items() if key[0] == worker.pid}
    runs = {("shop.add", 0): added, ("shop.fails", 0): 97, ("shop.refuses", 0): 14}
    runs |= {("shop.retries", number): 31 for number in range(3)}
    assert {(task, retries): each for (task, queue, retries), each in got.items()} == runs
    starts = [event for event in events if event.probe == "celery:task__start"]
    ends = [event for event in events if event.probe == "celery:task__done"]
    assert Counter((event.task, event.retries) for event in starts) == runs
    assert all(event.wait_ns > 0 and event.queue == "orders" for event in starts)
    assert Counter((event.task, event.retries, event.state, event.error) for event in ends) == {
        ("shop.add", 0, "SUCCESS", ""): added,
        ("shop.fails", 0, "FAILURE", "KeyError"): 97,
        ("shop.retries", 0, "RETRY", "ConnectionError"): 31,
        ("shop.retries", 1, "RETRY", "ConnectionError"): 31,
        ("shop.retries", 2, "SUCCESS", ""): 31,
        ("shop.refuses", 0, "IGNORED", "Ignore"): 7,
        ("shop.refuses", 0, "REJECTED", "Reject"): 7,
    }
    assert len({event.id for event in starts}) == count
    # The processes of a pool are forked before anybody traces.
    workers = {event.pid for event in ends}
    assert (workers == {worker.pid}) == (pool != "prefork") and len(workers) == (2 if pool == "prefork" else 1)
    worker.terminate()
    assert worker.wait(60) == 0


LATER = """
import shop, sys, time
print("ready", flush=True)
sys.stdin.readline()
late = shop.naps.apply_async((0,), expires=-1)
revoked = shop.naps.apply_async((0,), countdown=1)
shop.app.control.revoke(revoked.id)
slow = shop.naps.apply_async((60,), time_limit=1)
print(type(slow.get(propagate=False, timeout=60)).__name__, flush=True)
print(type(revoked.get(propagate=False, timeout=60)).__name__, flush=True)
"""


def test_tasks_that_never_end(celery, redis_server, spawn, wait_for_line, tmp_path):
    """One has expired, one is revoked, and the process of one is killed, after which a new process has the probes."""
    redis = f"redis+socket://{redis_server}"
    worker, _ = celery("prefork", 0, "--concurrency", "1", SHOP_BROKER=redis, SHOP_BACKEND=redis)
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "SHOP_BROKER": redis, "SHOP_BACKEND": redis}
    client = spawn([*RUN, "-c", LATER], env=variables, cwd=tmp_path)
    wait_for_line(client, "ready")
    with trace.Session(string_size=48) as session:
        revoked = session.usdt("celery:task__revoked").count("pid", "task", "reason")
        lost = session.usdt("celery:task__lost").count("pid", "task", "error")
        started = session.usdt("celery:task__start").count("pid", "task")
        session.start()
        time.sleep(0.2)  # until the worker has its hooks
        say(client)
        wait_for_line(client, "TimeLimitExceeded", timeout=60)
        wait_for_line(client, "TaskRevokedError", timeout=60)
        subprocess.run(
            [sys.executable, "-c", "import shop; shop.naps.delay(0).get(timeout=60)"],
            env=variables, cwd=tmp_path, check=True, timeout=90,
        )  # fmt: skip
        assert revoked.read() == {(worker.pid, "shop.naps", reason): 1 for reason in ("expired", "revoked")}
        assert lost.read() == {(worker.pid, "shop.naps", "TimeLimitExceeded"): 1}
        assert len(started.read()) == 2 and set(started.read().values()) == {1}  # in two processes
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_the_recipe(celery, redis_server, wait_for_line, spawn):
    """The command and the program of docs/recipes.md, as they stand there."""
    recipe = (ROOT / "docs" / "recipes.md").read_text().partition("## What do Celery's tasks wait for")[2]
    command = re.search(r"^usdtkit (trace 'u::celery:task__done .*)$", recipe, re.M)[1]
    program = re.search(r"```python\n(.*?)```", recipe, re.S)[1]
    redis = f"redis+socket://{redis_server}"
    _, client = celery("solo", 97 + 31 + 14 + 1, SHOP_BROKER=redis, SHOP_BACKEND=redis)
    shown = spawn(["sh", "-c", f"exec {sys.executable} -m usdtkit {command}"], cwd=ROOT, stderr=subprocess.PIPE)
    waits = spawn([sys.executable, "-c", program], cwd=ROOT)
    say(client)
    failed = wait_for_line(shown, "shop.fails", timeout=60)
    assert re.search(r"shop.fails FAILURE KeyError \d+ ms$", failed)
    assert re.search(r"shop.retries RETRY ConnectionError \d+ ms$", wait_for_line(shown, "shop.retries", timeout=60))
    assert re.search(r"^shop.fails \d+ us from publisher to worker$", wait_for_line(waits, "shop.fails", timeout=60))
    wait_for_line(client, "done", timeout=60)
