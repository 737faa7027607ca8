"""Tracing Go programs as they are shipped, without symbols: every call counted, with its arguments, its goroutine, and
the names and lines of its callers."""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commandline import json_lines, usdtkit
from programs.golang import DEBIAN, MARKET, NEWEST, STRIPPED

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.errors import UnsupportedError, UsageError
from usdtkit.trace import arg, cstr, uprobe
from usdtkit.trace.later import Wanted

pytestmark = pytest.mark.kernel

TIMES = 997
COMPILERS = pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
# How often each function is called, by its name without the types of generic ones.
CALLS = {
    "main.(*Shop).Sell": 2 * TIMES,
    "main.(*Shop).Sell-fm": TIMES,
    "main.Price.Rounded": TIMES,
    "main.Map": 2 * TIMES,
    "main.(*Pair).Swap": TIMES,
    "main.many": TIMES,
    "main.serve": 2,
    "main.serve.func1": TIMES,
    "main.serve.func2": TIMES,
    "main.serve.func3": TIMES,
    "main.serve.func3.1": TIMES,
    "main.deep": 202,
    "main.own": 2,
    "main.main": 1,
}


def plain(name):
    """The name without type arguments, and without the address that tells instances apart."""
    return re.sub(r"\[.*\](@0x[0-9a-f]+)?", "", name)


@pytest.fixture(scope="module")
def stripped(build_go):
    """stripped(compiler): the program, at no fixed address, without symbols and DWARF."""
    return lambda compiler: str(build_go("-buildmode=pie", STRIPPED, compiler=compiler))


@COMPILERS
def test_every_call_and_return_is_counted(stripped, ready, compiler):
    path = stripped(compiler)
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        entries = session.uprobe(path, "main.*").count("probe")
        session.start()
        assert len(process.communicate("go\n", timeout=60)[0].splitlines()) == 2
        counts = Counter()
        for (name,), count in entries.read().items():
            counts[plain(name)] += count
    assert {name: counts[name] for name in CALLS if name != "main.main"} == {
        name: count for name, count in CALLS.items() if name != "main.main"
    }


@COMPILERS
def test_arguments_results_and_goroutines(stripped, ready, compiler):
    path = stripped(compiler)
    process = ready([path])
    with trace.Session(pid=process.pid, ordered=True) as session:
        sold = session.pair(
            uprobe(path, "main.([*]Shop).Sell"), keep={"what": cstr(arg(2), 64, length=arg(3)), "amount": arg(4)}
        ).emit("what", "amount", "retval", "goid")
        many = session.uprobe(path, "main.many").emit(first=arg(1), ninth=arg(9), tenth=arg(10), eleventh=arg(11))
        triple = session.uprobe(path, "example.org/market/arith.Triple.abi0").emit(number=arg(1))
        deep = session.pair(uprobe(path, "main.deep")).count("goid")
        session.start()
        told = dict(line.split()[:2] for line in process.communicate("go\n", timeout=60)[0].splitlines())
        events = list(session)
        summary = session.summary()
        assert {number: count for (number,), count in deep.read().items()} == {int(own): 101 for own in told}
    assert (summary.lost, summary.unmatched, summary.unreadable, summary.open) == (0, 0, 0, 0)
    assert {sold, many, triple}
    bought = [event for event in events if event.probe == "main.(*Shop).Sell" and event.what == "apples"]
    assert sorted(event.amount for event in bought) == [n + 1 for n in range(TIMES)]
    assert all(event.retval == (event.amount + 6 if event.amount != TIMES else 0) for event in bought)
    assert Counter(str(event.goid) for event in bought) == {own: int(count) for own, count in told.items()}
    others = [event for event in events if event.probe == "main.(*Shop).Sell" and event.what == "a pear"]
    assert (len(others), {event.retval for event in others}) == (TIMES, {6})
    rows = [event for event in events if event.probe == "main.many"]
    assert {(event.first, event.ninth, event.tenth) for event in rows} == {(1, 9, 10)}
    assert sorted(event.eleventh for event in rows) == list(range(TIMES))
    numbers = [event.number for event in events if event.probe.endswith(".abi0")]
    assert sorted(numbers) == list(range(TIMES))


@COMPILERS
def test_generic_functions_have_their_dictionary_first(build_go, ready, compiler):
    """In a method newer compilers pass the receiver before it."""
    path = str(build_go(STRIPPED, compiler=compiler))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        dictionary = session.uprobe(path, "main.?[*]Pair*Swap").count(at=arg(1 if compiler == DEBIAN else 2))
        sizes = session.uprobe(path, "main.Map[[]*").count(size=arg(3), room=arg(4))
        session.start()
        process.communicate("go\n", timeout=60)
        assert dict(sizes.read()) == {(1, 1): 2 * TIMES}
        (((address,), count),) = dictionary.read().items()
    with Image.open(path) as image:
        constants = image.section(".rodata")
    assert (0 <= address - constants.address < constants.size, count) == (True, TIMES)


@COMPILERS
def test_stacks_with_names_and_lines(stripped, ready, compiler):
    path = stripped(compiler)
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        stacks = session.uprobe(path, "main.Price.Rounded").count("ustack")
        session.start()
        process.communicate("go\n", timeout=60)
        counted = {stack: count for (stack,), count in stacks.read().items()}
        assert sum(counted.values()) == TIMES
        frames = next(iter(counted)).frames
    names = [frame.name for frame in frames]
    assert names[:2] == ["main.Price.Rounded", "main.serve"]
    assert names[-1].startswith("runtime.goexit")
    lines = (MARKET / "main.go").read_text().splitlines()
    assert frames[1].file == str(MARKET / "main.go")
    assert "Rounded()" in lines[frames[1].line - 1]


def test_stackcount_shows_lines(build_go):
    path = str(build_go(STRIPPED))
    done = usdtkit("stackcount", f"{path}:main.deep", "-s", "-c", path)
    assert re.search(r"main\.serve\+0x[0-9a-f]+ \(main\.go:\d+\)", done.stdout)
    assert "lost 0" in done.stderr


@COMPILERS
def test_stacks_of_a_command_that_has_ended(build_go, compiler):
    """Also where the file has no build-id, as before Go 1.24: it is loaded where it says."""
    path = str(build_go(STRIPPED, compiler=compiler))
    with (
        Path(os.devnull).open("wb") as nowhere,
        trace.Session(command=[path], command_stdout=nowhere.fileno()) as session,
    ):
        stacks = session.uprobe(path, "main.own").count("ustack")
        session.start()
        os.waitid(os.P_PID, session.pids[0], os.WEXITED | os.WNOWAIT)
        named = [[frame.name for frame in stack] for (stack,) in stacks.read()]
    assert {tuple(names[:2]) for names in named} == {("main.own", "main.serve")}


def test_another_version_that_starts_later(build_go, tmp_path):
    """Where the number of a goroutine lies elsewhere, calls are counted, but not by what is read there."""
    program = build_go(STRIPPED).read_bytes()
    (tmp_path / "old").write_bytes(program)
    with trace.Session() as session:
        session.uprobe(f"{tmp_path}/*", "main.own").count()
        session.pair(uprobe(f"{tmp_path}/*", "main.own")).count("goid")
        session.program()
        later = session._blueprint.later()
        for version, hooks in ((b"go1.20.", {0, 1, 2}), (b"go1.23.", {0})):
            path = tmp_path / "new"
            path.write_bytes(program.replace(b"go1.19.", version))
            with Image.open(path) as image:
                found = later.search(Wanted(image, str(path)))
            assert {hook.index for hook, _ in found.places} == hooks
            assert len(found.remarks) == (1 if hooks == {0} else 0)
        assert "goid is elsewhere in its version of Go" in found.remarks[0]


def test_the_command_line(stripped):
    path = stripped(NEWEST)
    spec = f'r:{path}:main.deep "%d %d", goroutine, retval'
    done = usdtkit("trace", spec, "-c", path, "--json")
    _, events, summary = json_lines(done.stdout)
    assert (len(events), summary["lost"]) == (202, 0)
    listed = usdtkit("list", "--functions", "main.serve*", "-v", path).stdout
    assert re.match(rf"{path}: built by go1\.\d+\.\d+, module example.org/market", listed)
    assert f"{MARKET}/main.go:" in listed
    assert "was built by go1." in usdtkit("trace", spec, "--explain").stderr
    assert "was built by go1." in usdtkit("list", path).stderr


@COMPILERS
def test_the_program_does_what_it_does_untraced(stripped, ready, compiler):
    """With every function of its own seen to enter and to return, and those that allocate and switch."""
    path = stripped(compiler)
    untraced = subprocess.run([path], input="go\n", text=True, capture_output=True, check=True).stdout
    process = ready([path])
    busy = ("runtime.mallocgc", "runtime.newobject", "runtime.schedule", "runtime.gopanic", "runtime.growslice")
    with trace.Session(pid=process.pid) as session:
        latencies = session.pair(uprobe(path, "main.*", *busy)).hist("latency", "probe")
        session.start()
        told, _ = process.communicate("go\n", timeout=60)
        seen = {plain(name) for (name,) in latencies.read()}
        summary = session.summary()
    assert process.returncode == 0
    assert what_it_counted(told) == what_it_counted(untraced)
    assert {"main.(*Shop).Sell", "main.Map", "runtime.mallocgc"} <= seen
    assert (summary.lost, summary.full) == (0, 0)


def what_it_counted(output):
    """{TIMES: TOTAL} of each goroutine; their own numbers differ from run to run."""
    return {times: total for _, times, total in (line.split() for line in output.splitlines() if line != "ready")}


def test_a_program_of_the_first_version_with_registers(shipped):
    """Which others have built and stripped."""
    path = str(shipped("esbuild-linux-64@0.14.20"))
    spec = f'r:{path}:"os.(*File).Write" "%d %d %s", $goid, retval, str($entry(arg2), $entry(arg3))'
    output = usdtkit("trace", spec, "-c", f"{path} --version").stdout
    assert re.search(r"os\.\(\*File\)\.Write +1 8 0\.14\.20", output)


def test_a_program_of_an_old_version(shipped):
    """Arguments on the stack; where it returns, and which goroutine runs, is not known."""
    path = str(shipped("esbuild-linux-64@0.3.0"))
    code = subprocess.run([path, "--no-such-option"], capture_output=True).returncode
    with trace.Session(command=[path, "--no-such-option"]) as session:
        session.uprobe(path, "os.Exit").emit(code=arg(1))
        assert [event.code for event in session] == [code]
    assert code
    with trace.Session() as session, pytest.raises(UnsupportedError, match=r"Go before 1\.17"):
        session.uretprobe(path, "main.main")
    with trace.Session() as session, pytest.raises(UsageError, match="not in a register"):
        session.uprobe(path, "main.main").count("goid")
        session.program()
