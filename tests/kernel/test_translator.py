"""Programs without a compiler: what is translated does what bcc's bytecode does, and the verifier takes it."""

import json
import os
import subprocess
import sys

import pytest
from commandline import WITHOUT_BCC, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit

from usdtkit import trace
from usdtkit.bpf import translator
from usdtkit.bpf.compiler import compile_afresh
from usdtkit.bpf.uapi import PROG_TYPE_KPROBE, PROG_TYPE_RAW_TRACEPOINT
from usdtkit.cli import main
from usdtkit.cli.bundle import programs_of_tools
from usdtkit.kernel.load import Loaded
from usdtkit.trace import arg, buffer, comm, cstr, deref, interned, uid
from usdtkit.trace.aggregations import Distribution

FIRED = 997
COMPARED = ["hits", "received", "lost", "full", "unmatched", "overflow", "abandoned", "unreadable", "no_stack"]


def test_every_program_of_every_tool():
    for text in programs_of_tools():
        bytecode = translator.translate(text)
        loaded = Loaded(bytecode, [7] * 1000)
        try:
            for name in bytecode.programs:
                is_hook = name.startswith("hook_")
                loaded.program(name, type=PROG_TYPE_KPROBE if is_hook else PROG_TYPE_RAW_TRACEPOINT)
        finally:
            loaded.close()


@pytest.mark.parametrize("line", ["trace", "funcinterval", "mutexstat --hold -H", "uobjnew -l c -p 1"])
def test_maps_are_those_that_bcc_makes(line, everything):
    """Of every kind that a program declares."""
    if line == "trace":
        with trace.Session(pid=os.getpid(), capacity=7) as session:
            ACTIONS["statistics"](session.usdt("translated:everything", path=everything[0].path))
            text = session.program().text
    else:
        text = next(text for text, lines in programs_of_tools().items() if any(name.startswith(line) for name in lines))
    by_bcc, ours = compile_afresh(text), translator.translate(text)
    assert ours.maps == by_bcc.maps
    assert ours.programs.keys() == by_bcc.programs.keys()


def plain(value):
    """What compares with the same of another session."""
    match value:
        case trace.Stack():
            return value.addresses
        case Distribution():
            return value.buckets, value.sum
        case tuple():
            return tuple(map(plain, value))
    return value


def plain_event(event):
    return {name: plain(value) for name, value in event._asdict().items() if name != "time_ns"}


def read(table):
    return {plain(key): plain(value) for key, value in table.read().items()}


def by_two(monkeypatch, set_up, **options):
    """Two sessions that see the same hits, the programs of the first by bcc; each with what `set_up` returned of it."""
    sessions = []
    for name in ("bcc", ""):
        monkeypatch.setenv("USDTKIT_COMPILER", name)
        session = trace.Session(**options)
        sessions.append((session, set_up(session)))
        session.start()
    return sessions


def assert_equal(sessions, *, read=read, lost=False):
    """Both have received, counted and lost the same."""
    results = []
    for session, tables in sessions:
        with session:
            events = [plain_event(event) for event in session.drain()]
            summary = session.summary()
            results.append((events, [read(table) for table in tables], [getattr(summary, name) for name in COMPARED]))
            assert (summary.lost > 0) == lost
            assert summary.hits > 0 and (events or tables)
    assert results[0] == results[1]


# What a session does at own:everything(number, small, text, data, data's length, pointer).
NUMBER, SMALL, TEXT, POINTER = arg("number"), arg("small"), arg("text"), arg("pointer")
CONDITIONS = [
    (NUMBER % 3 == 1) | (TEXT == "ada 7"),
    TEXT.startswith("ada 1") & (comm != "nobody"),
    TEXT.matches("*a ?9*") & (uid == os.getuid()),
    ~TEXT.contains("8") & (SMALL < NUMBER),
    buffer("data", 5) == b"12345",
]
ACTIONS = {
    "fields": lambda s: s.emit(
        *("number", "small", "text", "data", "pid", "tid", "uid", "gid", "comm", "ip", "probe"),
        longer=cstr(TEXT, 4),
        sum=NUMBER * SMALL + 1,
        rounded=SMALL // -7,
        rest=NUMBER % 13,
        inverted=~NUMBER,
        shifted=SMALL >> 3,
        both=(NUMBER > 7) & (SMALL < 0),
        stack=trace.ustack,
    ),
    "conditions": lambda s: [s.where(condition).emit("number") for condition in CONDITIONS],
    "unreadable": lambda s: s.emit(there=deref(POINTER), text=cstr(POINTER, 16), far=deref(deref(POINTER, 8), 1 << 40)),
    "counts": lambda s: [s.count(), s.count("small"), s.count("text", comm=comm), s.sum(NUMBER, "data")],
    "histograms": lambda s: [s.hist(NUMBER), s.hist(SMALL, "text"), s.hist(SMALL, linear=(-500, 500, 10))],
    "statistics": lambda s: [s.stats(SMALL), s.stats(NUMBER, "text"), s.stats(SMALL, "text", anew=True)],
    "interned": lambda s: [s.count(text=interned(TEXT)), s.sum(NUMBER, data=interned("data"))],
    "stacks": lambda s: [s.count(stack=trace.ustack)],
}


@pytest.fixture
def everything(declare):
    types = {"number": "u64", "small": "i32", "text": "str", "data": "bytes", "pointer": "u64"}
    probe = declare("translated:everything", **types)

    def fire():
        for n in range(FIRED):
            probe(n * n << n % 40, n * (-1) ** n, f"ada {n % 97}", b"1234567"[: n % 8], id(n) if n % 5 else n)

    return probe, fire


@pytest.mark.parametrize("action", ACTIONS)
def test_the_same_of_the_same_hits(action, everything, monkeypatch):
    probe, fire = everything

    def set_up(session):
        done = ACTIONS[action](session.usdt("translated:everything", path=probe.path))
        return [table for table in done if hasattr(table, "read")] if isinstance(done, list) else []

    sessions = by_two(monkeypatch, set_up, pid=os.getpid())
    fire()
    assert_equal(sessions)


def test_the_same_is_lost(everything, monkeypatch):
    probe, fire = everything

    def set_up(session):
        source = session.usdt("translated:everything", path=probe.path)
        source.emit("number", "text")
        return [source.count()]

    sessions = by_two(monkeypatch, set_up, pid=os.getpid(), ring_size=4096)
    fire()
    assert_equal(sessions, lost=True)


def test_the_same_does_not_fit(everything, monkeypatch):
    probe, fire = everything

    def set_up(session):
        source = session.usdt("translated:everything", path=probe.path)
        entries = session.map(small="i64")
        source.put(entries, arg("number"), small=SMALL)
        table = source.count("text")
        return [table]

    sessions = by_two(monkeypatch, set_up, pid=os.getpid(), capacity=7)
    fire()
    full = [session.summary().full for session, _ in sessions]
    assert full[0] == full[1] > 0
    assert_equal(sessions, read=lambda table: sorted(table.read().values()))


def test_the_same_of_each_thread(everything, monkeypatch):
    probe, fire = everything

    def set_up(session):
        source = session.usdt("translated:everything", path=probe.path)
        values = session.thread_values(small="i64", sum="u64", text=16)
        source.where(NUMBER % 3 == 0).assign(values, small=SMALL, text=TEXT, sum=values.get("sum") + NUMBER)
        source.emit(**{name: values.get(name) for name in ("small", "sum", "text")})
        return [source.count(has=values.has())]

    sessions = by_two(monkeypatch, set_up, pid=os.getpid())
    fire()
    assert_equal(sessions)


@pytest.mark.parametrize("program", ["recursive.c", "pairs.c", "work.c"])
def test_the_same_pairs(program, compile_c, ready, monkeypatch):
    """Of calls that recur, of probes that nest in a thread, and of jobs that overlap."""
    path = str(compile_c(program, "-O1", "-pthread"))
    process = ready([path, *{"recursive.c": ["7", "13"], "pairs.c": ["((.)(.))", "97"], "work.c": []}[program]])

    def set_up(session):
        match program:
            case "recursive.c":
                pair = session.pair(trace.uprobe(path, "descend"), keep={"depth": arg(1).cast("i32")})
                pair.emit("depth", returned=trace.retval.cast("i32"))
            case "pairs.c":
                keep = {"serial": arg(1), "text": cstr(2, 16)}
                pair = session.pair(trace.usdt("nest:start"), trace.usdt("nest:end"), keep=keep)
                pair.where(arg(1) >= 0).emit("serial", "text", ended=arg(1))
            case _:
                pair = session.pair(trace.usdt("jobs:start"), trace.usdt("jobs:done"), key=arg(1))
                pair.emit(job=arg(1))
        pair.where(pair.latency >= 0).count("tid")
        return [pair.count("pid")]

    sessions = by_two(monkeypatch, set_up, pid=process.pid)
    process.communicate("go\n", timeout=60)
    assert_equal(sessions)


def test_c_of_a_user_needs_the_compiler(everything, monkeypatch, tmp_path):
    probe, fire = everything
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    with trace.Session(pid=os.getpid()) as session:
        session.usdt("translated:everything", path=probe.path).raw(
            "event->n = number + 1;", {"n": "u64"}, number="number"
        )
        assert translator.obstacle(session.program().text) == "C text of a user"
        session.start()
        fire()
        assert len(list(session.drain())) == FIRED
    [entry] = (tmp_path / "cache").iterdir()
    assert json.loads(entry.read_bytes())["bcc"] != ""


# Tools on a machine that has no bcc, and no program in its cache.


@pytest.fixture
def bare(tmp_path, spawn):
    """bare(tool, *arguments) -> a tracer that has attached."""
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cold")}
    return lambda *arguments: start_tracing(spawn, *arguments, prefix=WITHOUT_BCC, env=environment)


def test_trace_of_a_service(bare, shop):
    tracer = bare("trace", "--json", 'u::shop:order__start "%d %s", order_id, customer', "-p", str(shop.pid))
    answered = shop.send(FIRED)
    _, events, summary = json_lines(stop_tracing(tracer)[0])
    assert len(events) == sum(answered.values()) == FIRED
    assert (summary["received"], summary["lost"]) == (FIRED, 0)


def test_trace_of_a_function_and_of_its_return(bare):
    command = "getent ahosts localhost"
    for spec in (
        "p:c:getaddrinfo",
        'r:c:getaddrinfo "%d %s", retval, $entry(node)',
        'p:c:getaddrinfo (node == "localhost")',
    ):
        output, messages = end_of_tracing(bare("trace", spec, "-c", command))
        assert "getaddrinfo" in output and "lost 0" in messages


def test_gethostlatency(bare):
    tracer = bare("gethostlatency", "--json")
    asked = subprocess.Popen(["getent", "ahosts", "localhost"], stdout=subprocess.DEVNULL)
    asked.wait(60)
    _, events, _ = json_lines(stop_tracing(tracer)[0])
    assert {event["host"] for event in events if event["pid"] == asked.pid} == {"localhost"}


def test_argdist(bare, compile_c):
    program = compile_c("mysql_usdt.c")
    spec = f"u:{program}:mysql:query__start():char*:arg1"
    output, messages = end_of_tracing(bare("argdist", "-C", spec, "--command", f"{program} {FIRED}"))
    assert "lost 0" in messages and f" {FIRED} " in output


@pytest.mark.parametrize(
    "arguments", [("u:{}:jobs:start", "u:{}:jobs:done", "--key", "arg1"), ("{}:begin", "r:{}:finish")]
)
def test_probelatency(arguments, bare, compile_c, ready):
    path = compile_c("work.c", "-O1")
    program = ready([path])
    tracer = bare(
        "probelatency", *(word.replace("{}", str(path)) for word in arguments), "--json", "-p", str(program.pid)
    )
    go(program)
    _, [row], summary = json_lines(end_of_tracing(tracer)[0])
    assert (row["count"], summary["lost"]) == (996, 0)


def test_funccount_and_stackcount(bare, compile_c, ready):
    path = str(compile_c("recursive.c", "-O1", "-fno-omit-frame-pointer"))
    for tool in ("funccount", "stackcount", "funclatency"):
        process = ready([path, "7", "13"])
        tracer = bare(tool, f"{path}:descend", "--json", "-p", str(process.pid))
        process.communicate("go\n", timeout=60)
        _, rows, summary = json_lines(end_of_tracing(tracer)[0])
        assert (sum(row["count"] for row in rows), summary["lost"]) == (7 * 13, 0)


def test_it_is_said_why_a_program_needs_the_compiler(compile_c, monkeypatch, tmp_path, capsys):
    def translate(text):
        raise translator.UntranslatableError("goto")

    program = str(compile_c("mysql_usdt.c"))
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(translator, "translate", translate)
    line = ["trace", f"u:{program}:mysql:query__start"]
    assert main([*line, "--explain"]) == 0
    assert "bcc will compile the program, because of goto" in capsys.readouterr().err
    assert main([*line, "-v", "-c", f"{program} 7"]) == 0
    assert "bcc compiles the program, because of goto" in capsys.readouterr().err


def test_without_bcc_the_error_says_why_it_is_needed(everything, tmp_path):
    code = (
        "import sys; from usdtkit import trace; from usdtkit.errors import UsdtkitError\n"
        "session = trace.Session()\n"
        'session.usdt("translated:everything", path=sys.argv[1]).raw("event->n = 1;", {"n": "u64"})\n'
        "try: session.start()\nexcept UsdtkitError as error: print(error.exit_code, error.message, error.hint)\n"
    )
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    command = [*WITHOUT_BCC, sys.executable, "-c", code, everything[0].path]
    said = subprocess.run(command, text=True, capture_output=True, env=environment).stdout
    assert said.startswith("5 a BPF program must be compiled, because of C text of a user, and its compiler is missing")
    assert "python3-bpfcc" in said


def test_explain_says_nothing_of_a_compiler_that_is_not_needed(compile_c):
    done = usdtkit("trace", f"u:{compile_c('mysql_usdt.c')}:mysql:query__start", "--explain", prefix=WITHOUT_BCC)
    assert done.returncode == 0 and "bcc" not in done.stderr
