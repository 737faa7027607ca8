"""Calls of gRPC, of all four kinds, with threads and with asyncio: as many as the client made, with their status."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commandline import until_hooked

from usdtkit import trace

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, "-m", "usdtkit.run", "--with", "grpc"]

# Messages are bytes, which needs no generated code.
THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
import grpc

def unary(request, context):
    if request == b"aborts":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
    if request == b"sets":
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
    if request == b"fails":
        raise ValueError("mine")
    return request

def stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number
    if request == b"7":
        context.abort(grpc.StatusCode.DATA_LOSS, "broken")

def collect(requests, context):
    return b"%d" % sum(map(int, requests))

def both(requests, context):
    for request in requests:
        yield request

server = grpc.server(ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Stream": grpc.unary_stream_rpc_method_handler(stream),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}),))
server.add_insecure_port(sys.argv[1])
server.start()
print("ready", flush=True)
sys.stdin.readline()
server.stop(None).wait()
"""
AIO = """
import asyncio, sys
import grpc

async def unary(request, context):
    if request == b"aborts":
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
    if request == b"sets":
        context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
    if request == b"fails":
        raise ValueError("mine")
    return request

async def stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number
    if request == b"7":
        await context.abort(grpc.StatusCode.DATA_LOSS, "broken")

async def collect(requests, context):
    return b"%d" % sum([int(request) async for request in requests])

async def both(requests, context):
    async for request in requests:
        await context.write(request)

async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }),))
    server.add_insecure_port(sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await server.stop(None)

asyncio.run(main())
"""
WAIT = """
import sys, time
import grpc
from usdtkit.instrument import watcher
print("ready", flush=True)
sys.stdin.readline()
while not watcher.traced(["grpc:client__start", "grpc:client__done"]):
    time.sleep(0.001)
COUNT, ADDRESS = int(sys.argv[2]), sys.argv[1]
WRONG = [b"aborts"] * 13 + [b"sets"] * 7 + [b"fails"] * 5
def code(call, *args, **more):
    try:
        call(*args, **more)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"
"""
CALLS = """
from collections import Counter
counted = Counter()
with grpc.insecure_channel(ADDRESS) as channel:
    unary, unknown = channel.unary_unary("/shop.Orders/Unary"), channel.unary_unary("/shop.Orders/Unknown")
    stream, collect = channel.unary_stream("/shop.Orders/Stream"), channel.stream_unary("/shop.Orders/Collect")
    both = channel.stream_stream("/shop.Orders/Both")
    for number in range(COUNT):
        assert unary(b"%d" % number) == b"%d" % number
    counted.update(code(unary, request) for request in WRONG)
    assert unary.with_call(b"1")[0] == b"1"
    futures = [unary.future(b"2") for _ in range(31)]
    assert {future.result() for future in futures} == {b"2"}
    counted[code(unknown, b"1")] += 1
    assert len(list(stream(b"5"))) == 5
    counted[code(list, stream(b"7"))] += 1
    dropped = stream(b"1000000")
    next(dropped)
    del dropped
    cancelled = stream(b"1000000")
    next(cancelled)
    cancelled.cancel()
    assert collect(iter([b"1", b"2"])) == b"3"
    assert collect.future(iter([b"1", b"2"])).result() == b"3"
    assert list(both(iter([b"1", b"2"]))) == [b"1", b"2"]
with grpc.insecure_channel("unix:/nonexistent") as channel:
    counted[code(channel.unary_unary("/shop.Orders/Unary"), b"1")] += 1
with grpc.insecure_channel(ADDRESS, options=[("SingleThreadedUnaryStream", 1)]) as channel:
    assert len(list(channel.unary_stream("/shop.Orders/Stream")(b"5"))) == 5
print("done", sorted(counted.items()), flush=True)
"""
CALLS_AIO = """
import asyncio
from collections import Counter
class Passes(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        return await continuation(details, request)

async def main():
    counted = Counter()
    async def code(made):
        try:
            if hasattr(made, "__aiter__"):
                [message async for message in made]
            else:
                await made
        except grpc.RpcError as error:
            counted[error.code().name] += 1
    async with grpc.aio.insecure_channel(ADDRESS) as channel:
        unary, unknown = channel.unary_unary("/shop.Orders/Unary"), channel.unary_unary("/shop.Orders/Unknown")
        stream, collect = channel.unary_stream("/shop.Orders/Stream"), channel.stream_unary("/shop.Orders/Collect")
        both = channel.stream_stream("/shop.Orders/Both")
        for number in range(COUNT // 8):
            answers = await asyncio.gather(*(unary(b"%d" % number) for _ in range(8)))
            assert answers == [b"%d" % number] * 8
        for request in WRONG:
            await code(unary(request))
        assert set(await asyncio.gather(*(unary(b"2") for _ in range(32)))) == {b"2"}
        await code(unknown(b"1"))
        assert len([each async for each in stream(b"5")]) == 5
        await code(stream(b"7"))
        dropped = stream(b"1000000")
        await dropped.read()
        del dropped
        cancelled = stream(b"1000000")
        await cancelled.read()
        cancelled.cancel()
        for _ in range(2):
            assert await collect(iter([b"1", b"2"])) == b"3"
        assert [each async for each in both(iter([b"1", b"2"]))] == [b"1", b"2"]
        await asyncio.sleep(0.1)
    async with grpc.aio.insecure_channel("unix:/nonexistent") as channel:
        await code(channel.unary_unary("/shop.Orders/Unary")(b"1"))
    async with grpc.aio.insecure_channel(ADDRESS, interceptors=[Passes()]) as channel:
        assert len([each async for each in channel.unary_stream("/shop.Orders/Stream")(b"5")]) == 5
        assert await channel.unary_unary("/shop.Orders/Unary")(b"5") == b"5"
    print("done", sorted(counted.items()), flush=True)
asyncio.run(main())
"""
CLIENTS = {"threads": CALLS, "aio": CALLS_AIO}
SERVERS = {"threads": THREADS, "aio": AIO}


@pytest.mark.parametrize("client", ["threads", "aio"])
@pytest.mark.parametrize("server", ["threads", "aio"])
def test_every_call(server, client, spawn, wait_for_line, tmp_path):
    count, address = 2000, "unix:socket"
    running = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "cwd": tmp_path}
    serving = spawn([*RUN, "-c", SERVERS[server], address], **running, stderr=subprocess.DEVNULL)
    wait_for_line(serving, "ready")
    calling = spawn([*RUN, "-c", WAIT + CLIENTS[client], address, str(count)], **running, stderr=subprocess.STDOUT)
    wait_for_line(calling, "ready")
    with trace.Session(pid=[serving.pid, calling.pid], string_size=64) as session:
        made = session.usdt("grpc:client__start").count("pid", "method", "target")
        ended = session.usdt("grpc:client__done").count("pid", "method", "status")
        arrived = session.usdt("grpc:server__start").count("pid", "method")
        served = session.usdt("grpc:server__done").count("pid", "method", "status")
        latencies = session.usdt("grpc:client__done").where(trace.arg("latency_ns") > trace.ms(60_000)).count()
        session.start()
        until_hooked(serving.pid)
        calling.stdin.write("\n")
        calling.stdin.flush()
        said = wait_for_line(calling, "done", timeout=60)
        assert calling.wait(20) == 0
        serving.stdin.write("\n")
        serving.stdin.flush()
        assert serving.wait(20) == 0
        assert session.summary().lost == 0
        started = made.read()
        ends, begun, answered = (
            {key[1:]: number for key, number in each.read().items()} for each in (ended, arrived, served)
        )
        assert latencies.read() == {(): 0}
    statuses = {"NOT_FOUND": 13, "INVALID_ARGUMENT": 7, "UNKNOWN": 5, "UNIMPLEMENTED": 1, "DATA_LOSS": 1}
    succeeded = count + 32 + (client == "aio")
    # The client's own count; what succeeds has none with asyncio, and is asserted there.
    for status, number in (statuses | {"UNAVAILABLE": 1}).items():
        assert f"('{status}', {number})" in said
    expected = {("/shop.Orders/Unary", "OK"): succeeded, ("/shop.Orders/Stream", "OK"): 2}
    expected |= {("/shop.Orders/Stream", "CANCELLED"): 2, ("/shop.Orders/Stream", "DATA_LOSS"): 1}
    expected |= {("/shop.Orders/Collect", "OK"): 2, ("/shop.Orders/Both", "OK"): 1}
    expected |= {("/shop.Orders/Unary", status): statuses[status] for status in list(statuses)[:3]}
    unknown = {("/shop.Orders/Unknown", "UNIMPLEMENTED"): 1}
    assert ends == expected | unknown | {("/shop.Orders/Unary", "UNAVAILABLE"): 1}
    assert sum(started.values()) == sum(ends.values())
    assert {target for _, _, target in started} == {address, "unix:/nonexistent"}
    # The server of grpc.aio answers without asking the program for a function that there is not.
    assert answered == expected | (unknown if server == "threads" else {})
    totals = Counter()
    for (method, _), number in answered.items():
        totals[method] += number
    assert {method: number for (method,), number in begun.items()} == totals
