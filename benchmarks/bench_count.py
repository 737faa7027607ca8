"""What counting at a USDT site costs the program that is counted: usdtkit, bcc and bpftrace, and nobody.

The target takes the processor time of its own loop. Needs root, gcc, bcc, bpftrace and systemtap-sdt-dev.
"""

import contextlib
import subprocess
from functools import partial

from common import PROBE, compare, interrupt, medians, workplace

from usdtkit import trace

HITS, ROUNDS = 100_003, 15
BCC = """
BPF_PERCPU_ARRAY(sums, u64, 1);
int hit(struct pt_regs *ctx) { u32 at = 0; u64 *sum = sums.lookup(&at); if (sum) *sum += 1; return 0; }
"""


BASELINE = "bpftrace count()"


@contextlib.contextmanager
def usdtkit_counts(target):
    with trace.Session(pid=target.pid) as session:
        counts = session.usdt(PROBE).count()
        session.start()
        yield
        check("usdtkit", counts.read()[()])


@contextlib.contextmanager
def bcc_counts(target):
    import bcc

    probes = bcc.USDT(pid=target.pid)
    probes.enable_probe(probe="hit", fn_name="hit")
    module = bcc.BPF(text=BCC, usdt_contexts=[probes])
    yield
    check("bcc", module["sums"].sum(0).value)
    module.cleanup()


@contextlib.contextmanager
def bpftrace_counts(target):
    script = f"usdt:{target.path}:{PROBE} {{ @ = count(); }}"
    with subprocess.Popen(
        ["bpftrace", "-e", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tracer:
        while not target.is_traced():
            if tracer.poll() is not None:
                raise SystemExit("bpftrace does not attach")
        yield
        check("bpftrace", int(interrupt(tracer).partition("@:")[2]))


def check(name, counted):
    """What was measured is not the cost of counting unless all was counted."""
    if counted != HITS:
        raise SystemExit(f"{name} counted {counted} of {HITS} hits")


def cost(target, counting):
    """Nanoseconds a hit."""
    with counting(target):
        return target.fire(HITS)


# Its bound is that of the cost to the baseline's.
COUNTING = {
    BASELINE: (bpftrace_counts, None),
    "bcc, one per-CPU sum": (bcc_counts, None),
    "usdtkit count()": (usdtkit_counts, 1.0),
    "nobody": (lambda target: contextlib.nullcontext(), None),
}


def main():
    with workplace() as target:
        costs = medians(ROUNDS, {name: partial(cost, target, each) for name, (each, _) in COUNTING.items()})
    return 0 if compare("a hit", costs, BASELINE, {name: bound for name, (_, bound) in COUNTING.items()}) else 1


if __name__ == "__main__":
    raise SystemExit(main())
