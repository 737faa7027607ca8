"""A program of functions that call one another in all ways that Python has, and says what its own stacks are.

It runs on every CPython from 3.8 on: `python pyframes.py hits N` or `python pyframes.py wait`. It says "ready" and
waits for a line. Then it writes a line of JSON for each `hit`: the numbers of the thread, and its frames as Python
knows them, innermost first, each with how often it comes in a row. With `hits` it calls getppid on the same line, N
times altogether, in five threads and two sub-interpreters. With `wait` each of `ways` has a thread, which stops there.
Then it says "done" and waits for a line.
"""

import contextlib
import functools
import itertools
import json
import os
import re
import sys
import threading

quota = threading.local()
forever = threading.Lock()
is_waiting = sys.argv[1:2] == ["wait"]


def view():
    """What Python itself says of the caller's stack."""
    frame, frames = sys._getframe(1), []
    while frame:
        code = frame.f_code
        frames.append([getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno])
        frame = frame.f_back
    return frames


def say(line):
    """In one piece, as a pipe takes up to 4,096 bytes, because other threads and interpreters write too."""
    assert len(line) < 4096
    os.write(1, line.encode() + b"\n")


def say_view(frames):
    folded = [[*frame, len(list(same))] for frame, same in itertools.groupby(frames)]
    say(json.dumps({"tid": threading.get_native_id(), "thread": threading.get_ident(), "frames": folded}))


def hit(*_):
    if quota.hits:
        quota.hits -= 1
        say_view(view()), os.getppid(), is_waiting and forever.acquire()
    return 0


def recursive(depth):
    return recursive(depth - 1) if depth else hit()


def generator():
    yield from (hit() for _ in range(2))


def delegating():
    yield from generator()


async def inner():
    hit()


async def outer():
    await inner()
    async for _ in stream():
        pass
    return [hit() async for _ in stream()]


async def stream():
    hit()
    yield 1


class Shop:
    def __init__(self):
        hit()

    @property
    def price(self):
        return hit()

    @staticmethod
    def _sold(function):
        @functools.wraps(function)
        def sold(*arguments):
            try:
                return function(*arguments)
            finally:
                hit(
                    1,
                    2,
                )

        return sold

    def __getattr__(self, name):
        return hit

    def __enter__(self):
        return self

    def __exit__(self, *_):
        hit()

    @classmethod
    def open(cls):
        return cls._sold(lambda *_: hit())(1)


def comprehensions():
    return [hit() for _ in range(2)], {hit() for _ in range(2)}, {n: hit() for n in range(2)}


def callbacks():
    sorted([2, 1], key=lambda number: hit())
    re.sub("a", lambda found: str(hit()), "aba")
    list(map(hit, [1, 2]))
    functools.reduce(lambda a, b: a or hit(), [0, 0, 0])
    Shop().unknown()


def managed():
    with Shop() as shop:
        shop.price
    Shop.open()


def coroutine():
    with contextlib.suppress(StopIteration):
        outer().send(None)


def große():
    def 函数():
        def 𐎠():
            exec(compile("\n\nhit()", "/tmp/straße/文件.py", "exec"))

        𐎠()

    函数()


def deep():
    recursive(100)


ways = [
    *(lambda: recursive(3), lambda: [*generator()], lambda: next(delegating()), comprehensions, callbacks, managed),
    *(coroutine, große, deep),
]


def run(hits):
    quota.hits = hits
    while quota.hits:
        for way in ways:
            way()


def wait_in(way):
    quota.hits = 1
    way()


def run_in_another_interpreter(hits):
    text = "import sys; sys.argv = %r; __file__ = %r; exec(compile(open(__file__).read(), __file__, 'exec'))"
    text %= (["", "within", str(hits)], __file__)
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    number = interpreters.create()
    interpreters.run_string(number, text)
    interpreters.destroy(number)


def main():
    say("ready")
    sys.stdin.readline()
    if is_waiting:
        for way in ways:
            threading.Thread(target=wait_in, args=(way,), daemon=True).start()
    else:
        hits = int(sys.argv[2])
        threads = [threading.Thread(target=run, args=(hits // 6,)) for _ in range(3)]
        threads.append(threading.Thread(target=run_in_another_interpreter, args=(hits // 6,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run_in_another_interpreter(hits // 6)
        run(hits - 5 * (hits // 6))
    say("done")
    sys.stdin.readline()


if sys.argv[1:2] == ["within"]:
    run(int(sys.argv[2]))
else:
    forever.acquire()
    main()
