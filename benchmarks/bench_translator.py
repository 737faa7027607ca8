"""What our own translator is worth against bcc's compiler: the time until a program is there, and the cost of its hits.

The same sessions on the same target, once with the bytecode of each. The target takes the processor time of its own
loop. Needs root, gcc, bcc and systemtap-sdt-dev.
"""

import contextlib
import os
import time
from functools import partial

from common import PROBE, compare, medians, workplace

from usdtkit import trace
from usdtkit.bpf.compiler import compile_program
from usdtkit.trace import arg, comm, cstr

HITS, ROUNDS, MADE = 50_021, 15, 5
ACTIONS = {
    "count()": lambda source: source.count(),
    "count by a string": lambda source: source.count(text=cstr(2, 64)),
    "histogram by a string": lambda source: source.hist(arg(1), text=cstr(2, 64)),
    "a glob on a string": lambda source: source.where(cstr(2, 64).matches("*1? of*")).count(),
    "a condition of three": lambda source: source.where((arg(1) % 7 == 3) & (comm == "target")).count(),
    "an event with a string": lambda source: source.emit(number=arg(1), text=cstr(2, 64)),
    "stacks": lambda source: source.count(stack=trace.ustack),
}


@contextlib.contextmanager
def compiler(name):
    os.environ["USDTKIT_COMPILER"] = name
    try:
        yield
    finally:
        del os.environ["USDTKIT_COMPILER"]


def cost(target, action, name):
    """Nanoseconds a hit."""
    with compiler(name), trace.Session(pid=target.pid, ring_size=1 << 24) as session:
        ACTIONS[action](session.usdt(PROBE))
        session.start()
        taken = target.fire(HITS)
        if session.summary().hits != HITS:
            raise SystemExit(f"{session.summary().hits} of {HITS} hits")
        return taken


def making(target, action, name):
    """Nanoseconds until the bytecode of a program that is not in the cache is there."""
    with compiler(name), trace.Session(pid=target.pid) as session:
        ACTIONS[action](session.usdt(PROBE))
        # A comment makes it a program that nobody has asked for.
        text = f"{session.program().text}/* {time.monotonic_ns()} */\n"
        begun = time.perf_counter_ns()
        compile_program(text)
        return time.perf_counter_ns() - begun


def main():
    kept = []
    with workplace() as target:
        for what, measure, rounds, bound in (("a hit", cost, ROUNDS, 1.1), ("a program", making, MADE, 0.2)):
            for action in ACTIONS:
                names = {"bcc": "bcc", "translator": ""}
                taken = medians(rounds, {name: partial(measure, target, action, by) for name, by in names.items()})
                kept.append(compare(f"{what}, {action}", taken, "bcc", {"bcc": None, "translator": bound}))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
