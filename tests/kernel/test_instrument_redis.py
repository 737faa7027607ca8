"""redis-py and a real Redis: each command is fired once, and as many as the server itself has counted."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from processes import let_end, let_work

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
FIELDS = {
    "command__start": ("command", "arguments"),
    "command__done": ("command", "arguments", "error"),
    "pipeline": ("commands", "transaction", "error"),
    "message": ("kind", "size"),
    "connect": ("host", "port", "error"),
}
# What redis-py sends when it opens a connection, and what the test itself sends.
NOT_COUNTED = {"client|setinfo", "client|maint_notifications", "hello", "config|resetstat", "info", "select"}

# `await` is taken out for the clients that are not asynchronous.
PROGRAM = r"""
import asyncio, collections, json, sys, time
import redis, redis.asyncio
path = sys.argv[1]
counted = collections.Counter()
def did(*what, times=1):
    counted[json.dumps(what)] += times
def sent(command, arguments, error="", times=1):
    did("command__start", command, arguments, times=times)
    did("command__done", command, arguments, error, times=times)
def ready():
    from usdtkit.instrument import watcher
    print("ready", flush=True)
    sys.stdin.readline()
    probes = ["redis:" + name for name in ("command__start", "command__done", "pipeline", "message", "connect")]
    while not watcher.traced(probes) >= set(probes):
        time.sleep(0.001)
async def main():
    client = Redis(unix_socket_path=path)
    await client.ping()
    ready()
    for number in range(997):
        await client.set(f"secret{number}", "value", ex=50); sent("SET", 4)
        assert await client.get(f"secret{number}") == b"value"; sent("GET", 1)
    await client.client_setname("me"); sent("CLIENT SETNAME", 1)
    await client.execute_command("get secret1"); sent("GET", 1)
    await client.execute_command(b"DEL", "secret1", "secret2"); sent("DEL", 2)
    try:
        await client.incr("secret3")
    except redis.ResponseError as error:
        sent("INCRBY", 2, type(error).__name__)

    # a pipeline, and a transaction
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(31):
            pipeline.incr("counter"); sent("INCRBY", 2)
        assert len(await pipeline.execute()) == 31; did("pipeline", 31, False, "")
        pipeline.get("a").lpush("secret3", 1).get("b")
        sent("GET", 1, times=2)
        sent("LPUSH", 2, "ResponseError")
        assert isinstance((await pipeline.execute(raise_on_error=False))[1], redis.ResponseError)
        did("pipeline", 3, False, "")
        pipeline.get("a").lpush("secret3", 1).get("b")
        sent("GET", 1, times=2)
        sent("LPUSH", 2, "ResponseError")
        try:
            await pipeline.execute()
        except redis.ResponseError as error:
            did("pipeline", 3, False, type(error).__name__)
        assert await pipeline.execute() == []  # nothing is sent
    async with client.pipeline() as pipeline:
        pipeline.set("a", 1).get("a"); sent("SET", 2); sent("GET", 1)
        await pipeline.execute(); sent("MULTI", 0); sent("EXEC", 0); did("pipeline", 4, True, "")
        await pipeline.watch("a"); sent("WATCH", 1)
        await pipeline.get("a"); sent("GET", 1)
        pipeline.multi()
        pipeline.incr("a"); sent("INCRBY", 2)
        await pipeline.execute(); sent("MULTI", 0); sent("EXEC", 0); did("pipeline", 3, True, "")

    # subscriptions
    other = Redis(unix_socket_path=path)
    subscription = other.pubsub()
    await subscription.subscribe("news"); sent("SUBSCRIBE", 1); did("connect", path, 0, "")
    await subscription.psubscribe("n*"); sent("PSUBSCRIBE", 1)
    for kind in ("subscribe", "psubscribe"):
        assert (await subscription.get_message(timeout=20))["type"] == kind; did("message", kind, 0)
    for number in range(31):
        await client.publish("news", "x" * number); sent("PUBLISH", 2)
        for kind in ("message", "pmessage"):
            assert (await subscription.get_message(timeout=20))["type"] == kind; did("message", kind, number)
    await subscription.CLOSE()

    # connections
    fresh = Redis(unix_socket_path=path)
    for number in range(7):
        await fresh.ping(); sent("PING", 0)
    did("connect", path, 0, "")
    await fresh.CLOSE()
    nobody = Redis(unix_socket_path="/nowhere", retry=None)
    try:
        await nobody.ping()
    except redis.ConnectionError as error:
        sent("PING", 0, type(error).__name__)
        did("connect", "/nowhere", 0, type(error).__name__)
    print("done", json.dumps(list(counted.items())), flush=True)
    sys.stdin.readline()
    await other.CLOSE()
    await client.CLOSE()
"""
SYNC = PROGRAM.replace("async ", "").replace("await ", "").replace("CLOSE", "close") + "Redis = redis.Redis\nmain()\n"
ASYNC = PROGRAM.replace("CLOSE", "aclose") + "Redis = redis.asyncio.Redis\nasyncio.run(main())\n"


def cli(socket, *words):
    command = ["redis-cli", "-s", socket, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
def test_redis(redis_server, spawn, wait_for_line, program):
    command = [sys.executable, "-m", "usdtkit.run", "--with", "redis", "-c", program, str(redis_server)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = spawn(command, env=environment, cwd="/", stderr=subprocess.PIPE)
    wait_for_line(process, "ready", timeout=60)
    with trace.Session(pid=process.pid, string_size=96) as session:
        for name, fields in FIELDS.items():
            session.usdt(f"redis:{name}").emit(*fields)
        session.start()
        cli(redis_server, "config", "resetstat")
        said = let_work(process)
        served = cli(redis_server, "info", "commandstats")
        events = list(session.drain())
        summary = session.summary()
    let_end(process)
    assert (summary.lost, summary.rejected) == (0, 0)
    seen = Counter()
    for event in events:
        name = event.probe.partition(":")[2]
        seen[(name, *(getattr(event, field) for field in FIELDS[name]))] += 1
    expected = Counter({tuple(json.loads(key)): count for key, count in json.loads(said)})
    assert (expected - seen, seen - expected) == (Counter(), Counter())

    by_server = Counter()
    for line in served.splitlines():
        name, _, rest = line.removeprefix("cmdstat_").partition(":calls=")
        if rest and name not in NOT_COUNTED:
            by_server[name] = int(rest.partition(",")[0])
    names = [event.command for event in events if event.probe == "redis:command__done"]
    by_client = Counter(name.lower().replace(" ", "|") for name in names)
    by_client["ping"] -= 1  # the one to nowhere
    assert by_client == by_server
