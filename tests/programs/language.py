"""A Python program that does known things, under the probes of the language, when it is told to.

Says "ready"; a line names probes, with commas: when their hooks are set it does what `scenario` says, and prints
"done". Ends after one more line. With "install" as first argument it publishes the probes itself.
"""

import gc
import sys
import threading
import time

CALLS, DEPTH, FAILURES, COLLECTIONS, THREADS, EVENTS, ABSOLUTES = 997, 11, 13, 13, 31, 17, 97


def tick():
    return 1


def leaf():
    return 1


def recurse(depth):
    return recurse(depth - 1) if depth > 1 else 0


def each():
    for number in range(5):
        yield number * 2


class Once:
    def __await__(self):
        yield


async def waits():
    await Once()
    await Once()


def run(coroutine):
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        pass


def fails(depth):
    if depth:
        fails(depth - 1)
    else:
        raise OSError("deep")


def catches():
    try:
        return fails(2)
    except OSError:
        return None


def absolutes():
    for number in range(ABSOLUTES):
        abs(number)


def imports():
    import colorsys

    try:
        import this_is_not_there  # noqa: F401
    except ImportError:
        return colorsys


def worker():
    leaf()


def threads():
    running = [threading.Thread(target=worker, name=f"worker {number}") for number in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def audits():
    for number in range(EVENTS):
        sys.audit("language.event", number)


def scenario():
    for _ in range(CALLS):
        leaf()
    recurse(DEPTH)
    list(each())
    run(waits())
    for _ in range(FAILURES):
        catches()
    absolutes()
    imports()
    threads()
    audits()
    for _ in range(COLLECTIONS):
        gc.collect()


def await_tracer():
    """Read a line, and call `tick` until all probes that it names are traced."""
    from usdtkit.instrument import python

    wanted = set(filter(None, sys.stdin.readline().strip().split(",")))
    while not wanted <= python.traced():
        tick()
        time.sleep(0.001)


if __name__ == "__main__":
    if sys.argv[1:2] == ["install"]:
        from usdtkit.instrument import python

        python.install()
    gc.disable()
    print("ready", flush=True)
    await_tracer()
    scenario()
    print("done", flush=True)
    sys.stdin.readline()
