"""What an event costs the tracer that makes Python objects of it, and whether a burst is accounted for; bcc beside it.

A burst waits in a ring buffer that holds all of it; then the CPU time of this process for reading it is taken, every
field of every event being read once, and nothing done with it. Needs root, gcc, bcc and systemtap-sdt-dev.

Texts of columns are made into objects when they are looked at, so columns are measured with and without a look at them.
bcc's events have one text, and it is the same to bcc whether a text repeats: its cost is the baseline of all.
"""

import contextlib
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from common import PROBE, figure, medians, workplace

from usdtkit import trace

EVENTS, ROUNDS = 100_003, 7
BURST = 1_000_003
RING_SIZE = 32 << 20
NUMBER_AND_TEXT = {"n": trace.arg(1), "text": trace.cstr(2, 32)}
FOUR_TEXTS = NUMBER_AND_TEXT | {f"text_{more}": trace.cstr(2, 32) for more in range(3)}

BCC = """
#include <uapi/linux/ptrace.h>
struct event { u64 time; u32 pid, tid; u64 n; char text[32]; };
BPF_RINGBUF_OUTPUT(events, PAGES);
int hit(struct pt_regs *ctx) {
  u64 n = 0, text = 0;
  struct event *e = events.ringbuf_reserve(sizeof(struct event));
  if (!e) return 0;
  bpf_usdt_readarg(1, ctx, &n);
  bpf_usdt_readarg(2, ctx, &text);
  u64 id = bpf_get_current_pid_tgid();
  e->time = bpf_ktime_get_ns(); e->pid = id >> 32; e->tid = id; e->n = n;
  bpf_probe_read_user_str(e->text, sizeof(e->text), (void *)text);
  events.ringbuf_submit(e, 0);
  return 0;
}
"""


@contextlib.contextmanager
def objects(target, ordered=False):
    """usdtkit's events."""
    with trace.Session(pid=target.pid, ring_size=RING_SIZE, ordered=ordered) as session:
        session.usdt(PROBE).emit(**NUMBER_AND_TEXT)
        session.start()

        def read():
            count = 0
            for event in session.drain():
                count += 1
                event.n, event.pid, event.tid, event.time_ns, event.text  # noqa: B018
            return count

        yield read, lambda: session.summary().lost


class Row(NamedTuple):
    """An event as a named tuple."""

    n: int
    pid: int
    tid: int
    time_ns: int
    text: str | None


@dataclass(slots=True)
class Record:
    """An event as a dataclass."""

    n: int
    pid: int
    tid: int
    time_ns: int
    text: str | None


@contextlib.contextmanager
def rows(target, into):
    """usdtkit's events as objects of a class of ours."""
    with trace.Session(pid=target.pid, ring_size=RING_SIZE) as session:
        session.usdt(PROBE).emit(into=into, **NUMBER_AND_TEXT)
        session.start()

        def read():
            count = 0
            for row in session.drain():
                count += 1
                row.n, row.pid, row.tid, row.time_ns, row.text  # noqa: B018
            return count

        yield read, lambda: session.summary().lost


@contextlib.contextmanager
def columns(target, emitted=NUMBER_AND_TEXT, look=len):
    """usdtkit's events, as columns; `look` at them is how many they are."""
    with trace.Session(pid=target.pid, ring_size=RING_SIZE) as session:
        session.usdt(PROBE).emit(**emitted)
        session.start()
        yield lambda: sum(map(look, session.drain_columns())), lambda: session.summary().lost


def all_texts(batch):
    """Make an object of each text of the columns."""
    return len(list(batch["text"]))


@contextlib.contextmanager
def bcc_objects(target):
    """bcc's: a callback for each event, which makes a structure of it."""
    import bcc

    probes = bcc.USDT(pid=target.pid)
    probes.enable_probe(probe="hit", fn_name="hit")
    module = bcc.BPF(text=BCC.replace("PAGES", str(RING_SIZE // 4096)), usdt_contexts=[probes])
    ring = module["events"]
    count = 0

    def on_event(context, data, size):
        nonlocal count
        event = ring.event(data)
        count += 1
        event.n, event.pid, event.tid, event.time, event.text  # noqa: B018

    ring.open_ring_buffer(on_event)

    def read():
        before = count
        module.ring_buffer_poll(0)
        return count - before

    yield read, None
    module.cleanup()


# A consumer is a context manager of a target, which yields a function that reads all that waits and returns how many
# that were, and one that says how many were lost, or None where nobody knows. With it: how many texts take turns, and
# the bound of its CPU time to bcc's.
BASELINE = "bcc, ring_buffer_poll"
CONSUMERS = {
    BASELINE: (bcc_objects, 13, None),
    "usdtkit, events": (objects, 13, 1 / 10),
    "usdtkit, events in order": (partial(objects, ordered=True), 13, 1 / 5),
    "usdtkit, events as a NamedTuple": (partial(rows, into=Row), 13, 1 / 5),
    "usdtkit, events as a dataclass": (partial(rows, into=Record), 13, 1 / 5),
    "usdtkit, columns": (columns, 13, 1 / 50),
    "usdtkit, columns, no text twice": (columns, EVENTS, 1 / 50),
    "usdtkit, columns of four texts": (partial(columns, emitted=FOUR_TEXTS), EVENTS, 1 / 25),
    "usdtkit, columns, each text looked at": (partial(columns, look=all_texts), EVENTS, 1 / 20),
}
IN_A_BURST = (BASELINE, "usdtkit, events", "usdtkit, columns")
TRACERS = (BASELINE, "usdtkit, events")


def cost(target, consumer, texts):
    """CPU nanoseconds of this process for an event, all of EVENTS waiting."""
    with consumer(target) as (read, _):
        target.fire(EVENTS, texts)
        started = time.process_time_ns()
        received = read()
        spent = time.process_time_ns() - started
    if received != EVENTS:
        raise SystemExit(f"{received} of {EVENTS} events arrived although there is room for them")
    return spent / EVENTS


def hit(target, consumer):
    """CPU nanoseconds of the target for a hit that nobody reads meanwhile."""
    with consumer(target):
        return target.fire(EVENTS)


def burst(target, consumer):
    """(events received, lost) of BURST that are fired as fast as can be and read meanwhile."""
    with consumer(target) as (read, lost):
        target.send(BURST)
        fired = threading.Thread(target=target.fired)
        fired.start()
        received = 0
        while fired.is_alive():
            received += read()
        received += read()
        return received, lost and lost()


def main():
    kept = []
    with workplace() as target:
        costs = medians(ROUNDS, {name: partial(cost, target, *each[:2]) for name, each in CONSUMERS.items()})
        for name, (_, _, bound) in CONSUMERS.items():
            ratio = costs[name] / costs[BASELINE]
            kept.append(figure(f"CPU an event: {name}", costs[name], "ns", BASELINE, ratio, bound))
        hits = medians(ROUNDS, {name: partial(hit, target, CONSUMERS[name][0]) for name in TRACERS})
        for name in TRACERS:
            figure(f"a hit costs the target: {name}", hits[name], "ns", BASELINE, hits[name] / hits[BASELINE])
        for name in IN_A_BURST:
            consumer = CONSUMERS[name][0]
            received, lost = burst(target, consumer)
            unaccounted = BURST - received - (lost or 0)
            figure(f"burst of {BURST:,}, received: {name}", received, "")
            figure(f"burst of {BURST:,}, said to be lost: {name}", lost or 0, "")
            bound = None if lost is None else 0
            kept.append(figure(f"burst of {BURST:,}, unaccounted: {name}", abs(unaccounted), "", bound=bound))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
