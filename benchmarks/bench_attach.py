"""How long attaching to and detaching from every function of libc takes, and what bcc and bpftrace need for 67 of them.

usdtkit and bcc are timed in this process, without compiling; bpftrace as a process that leaves at once. Needs root,
gcc, bcc, bpftrace and systemtap-sdt-dev.
"""

import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

from common import figure, medians, workplace

from usdtkit import targets, trace

ROUNDS, SLOW_ROUNDS = 7, 1
FEW = 67
BCC = """
BPF_ARRAY(sums, u64, 1);
int hit(struct pt_regs *ctx) { u32 at = 0; u64 *sum = sums.lookup(&at); if (sum) *sum += 1; return 0; }
"""


def seconds(run):
    """How long the call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def usdtkit_all(libc):
    """Seconds for a session on all functions to start and to detach; compiled before, looking them up included."""
    with trace.Session() as session:

        def both():
            session.uprobe(libc, "*").count()
            session.start()
            session.detach()

        return seconds(both)


def usdtkit_few(libc, names):
    """The same for the few functions."""
    with trace.Session() as session:

        def both():
            session.uprobe(libc, *names).count()
            session.start()
            session.detach()

        return seconds(both)


def bcc_few(libc, names):
    """The same by bcc, after its compilation."""
    import bcc

    module = bcc.BPF(text=BCC)

    def both():
        for name in names:
            module.attach_uprobe(name=libc, sym=name, fn_name="hit")
        module.cleanup()

    return seconds(both)


def bpftrace_few(libc, names):
    """A whole bpftrace, as it does not say when it has attached; it leaves at once."""
    probes = ",".join(f"uprobe:{libc}:{name}" for name in names)
    script = f"{probes} {{ @ = count(); }} interval:ms:1 {{ exit(); }}"
    return seconds(
        lambda: subprocess.run(
            ["bpftrace", "-e", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    )


def few_functions(libc):
    """(number of all functions of libc, names of FEW that every tracer can attach to)."""
    functions = targets.find_functions(libc, ["*"])
    with trace.Session() as session:
        session.uprobe(libc, "*").count()
        session.start()
        refused = {refusal.file_offset for refusal in session.refused}
    offsets = Counter(function.file_offset for function in functions)
    good = [
        f.name for f in functions if f.file_offset not in refused and offsets[f.file_offset] == 1 and f.name[0] != "_"
    ]
    return len(offsets), sorted(good)[:: len(good) // FEW][:FEW]


def main():
    with workplace():
        libc = next(
            line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so.6" in line
        )
        total, names = few_functions(libc)
        few = f"{FEW} functions"
        everything, ours, bcc, bpftrace = (
            f"usdtkit, all {total} functions of libc", f"usdtkit, {few}", f"bcc, {few}", f"bpftrace, {few}",
        )  # fmt: skip
        took = medians(ROUNDS, {everything: partial(usdtkit_all, libc), ours: partial(usdtkit_few, libc, names)})
        took |= medians(SLOW_ROUNDS, {bcc: partial(bcc_few, libc, names), bpftrace: partial(bpftrace_few, libc, names)})
        kept = [
            figure(f"attach and detach: {name}", value * 1e3, "ms", bcc, value / took[bcc])
            for name, value in took.items()
        ]
        kept.append(figure(f"attach and detach: {everything}", took[everything], "s", bound=1.0))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
