"""997 calls of branch and of leaf, 13 collections, 31 exceptions and 31 threads; then it says done and waits."""

import gc
import sys
import threading
import time


def leaf(n):
    return n + 1


def branch(n):
    return leaf(n)


gc.disable()
print("ready", flush=True)
sys.stdin.readline()
if python := sys.modules.get("usdtkit.instrument.python"):
    while not python.traced():  # it takes notice of a tracer now and then
        time.sleep(0.01)
for number in range(997):
    branch(number)
for number in range(31):
    try:
        raise ValueError(number)
    except ValueError:
        pass
threads = [threading.Thread(target=lambda: None, name=f"worker-{number}") for number in range(31)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for _ in range(13):
    gc.collect()
print("done", flush=True)
sys.stdin.readline()
