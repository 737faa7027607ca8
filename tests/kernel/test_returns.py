"""How returns of functions are seen: what is chosen for which function, and that each way counts every call once."""

import contextlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commandline import assert_explained, usdtkit

from usdtkit import trace
from usdtkit.errors import UnsupportedError, UsageError
from usdtkit.trace import arg, uprobe, uretprobe

TIMES = 997
PROGRAMS = Path(__file__).parents[1] / "programs"
FUNCTIONS = ("leaf", "plain", "tail", "copies", "through", "maybe", "nothing")
WAYS = ("auto", "sites", "probes")


@pytest.fixture
def program(compile_c):
    return compile_c("returns.c", "-O2")


@pytest.fixture
def traced(program, ready):
    """traced(define, **options): a session of the program, which runs within it; (what define returned, summary)."""

    @contextlib.contextmanager
    def run(define, **options):
        process = ready([program, TIMES])
        with trace.Session(pid=process.pid, **options) as session:
            made = define(session, str(program))
            session.start()
            output = process.communicate("go\n", timeout=60)[0]
            assert (process.returncode, output) == (0, expected())
            yield session, made

    return run


def expected():
    """What the program prints."""

    def plain(n):
        return n * 3 + 1 + n

    def maybe(n):
        return plain(n) if n % 2 else n + 7

    return f"{sum(n * 3 + 2 * plain(n) + plain(n + 1) + maybe(n) + ord('a') for n in range(TIMES))}\n"


# What is called by others besides, and how often main calls it.
CALLS = {
    "leaf": TIMES * 7 + TIMES // 2,
    "plain": TIMES * 3 + TIMES // 2,
    **dict.fromkeys(("tail", "copies", "through", "maybe", "nothing"), TIMES),
}


@pytest.mark.parametrize("returns", WAYS)
@pytest.mark.parametrize("method", [None, "perf_link"])
def test_every_return_is_counted_once(traced, returns, method):
    def define(session, path):
        return session.uretprobe(path, *FUNCTIONS).count("probe"), session.pair(uprobe(path, *FUNCTIONS)).count("probe")

    with traced(define, returns=returns, method=method) as (session, counts):
        session.detach()
        for count in counts:
            assert {name: number for (name,), number in count.read().items()} == CALLS
        summary = session.summary()
        assert (summary.unmatched, summary.abandoned, summary.open, summary.full) == (0, 0, 0, 0)


@pytest.mark.parametrize("returns", WAYS)
def test_values_and_latencies(traced, returns):
    def define(session, path):
        return session.pair(uprobe(path, "tail", "maybe", "copies"), keep={"n": arg(1)}).emit("n", "latency", "retval")

    with traced(define, returns=returns) as (session, _):
        events = list(session)
    by_name = {name: [event for event in events if event.probe == name] for name in ("tail", "maybe", "copies")}
    assert [(event.n, event.retval) for event in by_name["tail"]] == [(n, n * 4 + 5) for n in range(TIMES)]
    assert [event.retval for event in by_name["maybe"]] == [n * 4 + 1 if n % 2 else n + 7 for n in range(TIMES)]
    assert all(event.latency_ns > 0 for event in events)
    # A return probe that takes over where it jumps to strcpy has the value; at the jump itself nobody knows it.
    known = all(event.retval == event.n for event in by_name["copies"])
    assert (known, session.summary().unreadable) == ((True, 0) if returns != "sites" else (False, TIMES))


def test_a_call_through_a_pointer_ends_where_it_jumps(traced):
    def define(session, path):
        return session.pair(uprobe(path, "through")).emit("retval"), session.uprobe(path, "plain").emit(n=arg(1))

    with traced(define, returns="sites", ordered=True) as (session, _):
        names = Counter(event.probe for event in session)
        assert (names["through"], session.summary().unreadable) == (TIMES, TIMES)


def test_what_is_chosen(traced, program):
    def define(session, path):
        session.uretprobe(path, *FUNCTIONS).count()
        session.uretprobe("c", "malloc").count()

    with traced(define) as (session, _):
        # Nothing in this process can leave a function otherwise.
        assert {site.returns for site in session.plan()} == {"probes"}
    with trace.Session() as session:
        define(session, str(program))
        ways = {}
        for site in session.plan():
            # Programs that run here may have a malloc of their own, which is none of libc's.
            if site.kind == "return" and (site.path == str(program) or "/libc." in site.path):
                assert site.why
                ways.setdefault(site.name, set()).add(site.returns)
    assert ways == {
        **{name: {"probes"} for name in ("leaf", "nothing", "malloc")},
        **{name: {"sites"} for name in ("plain", "tail", "through", "maybe")},
        "copies": {"tail"},
    }


def test_the_start_of_one_function_to_the_return_of_another(traced):
    """The exits of `tail` are those of `plain`, which is called by others as well."""

    def define(session, path):
        return session.pair(uprobe(path, "copies"), uretprobe(path, "tail")).count()

    with traced(define, returns="sites") as (_, count):
        # Of each round the copy comes last, so that the last has no tail after it.
        assert count.read()[()] == TIMES - 1


def test_returns_of_goroutines_by_their_numbers(tmp_path, ready):
    path = tmp_path / "routines"
    settings = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off", "GOFLAGS": ""}
    subprocess.run(["go", "build", "-o", path, PROGRAMS / "routines.go"], check=True, env=settings)
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        counts = session.uretprobe(str(path), "main.work").count("goid")
        session.start()
        told = [line.split() for line in process.communicate("go\n", timeout=60)[0].splitlines()]
        assert {number: count for (number,), count in counts.read().items()} == {int(own): int(n) for own, n in told}
    assert len(told) == 3
    with trace.Session() as session, pytest.raises(UsageError, match="only functions of Go"):
        session.uprobe("c", "malloc").count("goid")
        session.program()


def test_what_is_left_out_or_refused(program):
    with trace.Session() as session:
        with pytest.raises(UnsupportedError, match="the returns of data in"):
            session.uretprobe(str(program), "data")
        with pytest.raises(UnsupportedError, match="returns twice"):
            session.pair(uprobe("c", "_setjmp"))
        places = session.pair(uprobe(str(program), "data", "plain")).start.resolved.places
        assert [place.name for place in places] == ["plain"]
        names = {place.name for place in session.pair(uprobe("c", "*setjmp*", "getc*")).start.resolved.places}
        assert "getcwd" in names
        assert not {"_setjmp", "setjmp", "__sigsetjmp", "getcontext"} & names
        assert session.uprobe("c", "_setjmp").resolved.places  # an entry harms nobody
    with pytest.raises(UsageError, match="not a way to see returns"):
        trace.Session(returns="magic")


def test_the_command_line(program):
    done = usdtkit("funclatency", f"{program}:plain", "-c", f"{program} 97")
    assert "count 339" in done.stdout  # three times in each round, and in half of them by maybe
    rows = [
        json.loads(line)
        for line in usdtkit("funclatency", f"{program}:plain", "--explain", "--json").stdout.splitlines()
    ]
    assert {row["returns"] for row in rows[1:] if row["kind"] == "return"} == {"sites"}
    probes = usdtkit("funclatency", f"{program}:plain", "--explain", "--returns=probes")
    assert "the kernel's return probes: asked for" in probes.stderr
    left_out = usdtkit("funclatency", "c:*etcontext*", "--explain")
    assert "returns twice" in left_out.stderr
    assert_explained(usdtkit("funclatency", "c:_setjmp"), 5, "_setjmp returns twice", "longjmp")
    assert usdtkit("funclatency", f"{program}:plain", "--returns=magic").returncode == 2
