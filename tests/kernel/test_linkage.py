"""Functions of a library that are somewhere else: in a static program, in another C library, in the program itself, in
a second library of the same name. They are found there, or it is said why not."""

import ctypes
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, stop_tracing, usdtkit

from usdtkit import trace
from usdtkit.errors import NotFoundError

SOURCE = (Path(__file__).parents[1] / "programs" / "linked.c").read_text()
# The ways to link it: flags, and the compiler.
WAYS = {
    "dynamic": ((), "gcc"),
    "static": (("-static",), "gcc"),
    "static-pie": (("-static-pie",), "gcc"),
    "musl": ((), "musl-gcc"),
    "static musl": (("-static",), "musl-gcc"),
}
STATIC = [way for way in WAYS if "static" in way]

BIG_NODE = Path(shutil.which("node") or os.devnull).resolve().stat().st_size > 1 << 20


@pytest.fixture
def build(compile_c):
    def make(way, *flags):
        linking, compiler = WAYS[way]
        return compile_c(SOURCE, "-O1", "-pthread", *linking, *flags, compiler=compiler)

    return make


@pytest.fixture
def traced(build, ready, spawn, wait_for_line):
    """traced(way, *arguments, flags=()) -> (output, remarks) of a tool that traces one run, by -p."""

    def run(way, *arguments, flags=()):
        program = ready([build(way, *flags)])
        remarks = usdtkit(*arguments, "-p", program.pid, "--explain").stderr
        tracer = start_tracing(spawn, *arguments, "-p", str(program.pid))
        go(program)
        wait_for_line(program, "done")
        return stop_tracing(tracer)[0], remarks

    return run


@pytest.mark.parametrize("way", WAYS)
def test_functions_of_c(traced, build, way):
    output, remarks = traced(way, "gethostlatency", "--json")
    _, rows, summary = json_lines(output)
    assert [(row["function"], row["host"], row["result"]) for row in rows] == [("getaddrinfo", "127.0.0.1", "ok")] * 7
    assert (summary["hits"], summary["lost"]) == (7, 0)
    assert ("is statically linked" in remarks) == (way in STATIC)
    done = usdtkit("gethostlatency", "--json", "-c", f"{build(way)} quiet")
    assert len(json_lines(done.stdout)[1]) == 7
    assert ("is statically linked" in done.stderr) == (way in STATIC)


@pytest.mark.parametrize("way", WAYS)
def test_counts_of_every_tool(traced, way):
    _, rows, _ = json_lines(traced(way, "threadsnoop", "--json")[0])
    assert [row["function"] for row in rows] == ["run"] * 3
    _, rows, _ = json_lines(traced(way, "memleak", "--json", "-o", "0")[0])
    assert (97, 97 * 31) in [(row["count"], row["bytes"]) for row in rows]
    _, rows, _ = json_lines(traced(way, "libcalls", "getaddrinfo", "pthread_create", "--json")[0])
    assert {row["function"]: row["count"] for row in rows} == {"getaddrinfo": 7, "pthread_create": 3}
    _, rows, _ = json_lines(traced(way, "funccount", "c:pthread_crea*", "--json")[0])
    assert sum(row["count"] for row in rows if row["function"] == "pthread_create") == 3
    _, rows, _ = json_lines(traced(way, "mutexstat", "--hold", "-m", "900", "--json")[0])
    assert sum(row["count"] for row in rows) == 3
    assert json_lines(traced(way, "deadlock", "--json")[0])[2]["received"] >= 6


@pytest.mark.parametrize("tool", ["gethostlatency", "memleak", "mutexstat", "deadlock", "threadsnoop"])
@pytest.mark.parametrize("way", STATIC)
def test_stripped_static_programs(build, ready, way, tool):
    path = build(way, "-s")
    program = ready([path])
    for options in (["-p", program.pid], ["-c", path]):
        done = usdtkit(tool, *options)
        assert_explained(done, 4, "is statically linked, and stripped, so these functions cannot be found: ")
    assert_explained(
        usdtkit("funccount", "c:malloc", "-p", program.pid), 4, f"process {program.pid} is statically", "malloc"
    )


def test_what_a_static_program_has_not(build, ready):
    program = ready([build("static")])
    assert_explained(
        usdtkit("libcalls", "getgrouplist", "-p", program.pid),
        *(4, f"process {program.pid} is statically linked; its own symbols do not include getgrouplist"),
    )
    with (
        trace.Session(pid=program.pid) as session,
        pytest.raises(NotFoundError, match="own symbols do not include getgrouplist"),
    ):
        session.uprobe("c", "getgrouplist")
    with trace.Session(pid=program.pid) as session:
        session.uprobe("c", "getaddrinfo", "getgrouplist").count()
        traced, missing = session.remarks
    assert traced.endswith(": getaddrinfo")
    assert missing == f"process {program.pid} is statically linked; its own symbols do not include getgrouplist"


def test_one_of_several_processes_is_static(build, ready, spawn, wait_for_line):
    programs = [ready([build(way)]) for way in ("dynamic", "static", "musl", "static musl")]
    pids = ",".join(str(program.pid) for program in programs)
    assert "'c' means several files here" in usdtkit("gethostlatency", "--explain", "-p", pids).stderr
    tracer = start_tracing(spawn, "gethostlatency", "--json", "-p", pids)
    for program in programs:
        go(program)
        wait_for_line(program, "done")
    _, rows, _ = json_lines(stop_tracing(tracer)[0])
    assert {program.pid: sum(row["pid"] == program.pid for row in rows) for program in programs} == {
        program.pid: 7 for program in programs
    }


def test_in_every_process(build, ready, spawn, wait_for_line):
    """Without -p: glibc, musl, and static programs that run."""
    programs = [ready([build(way)]) for way in ("dynamic", "static", "static-pie", "musl", "static musl")]
    tracer = start_tracing(spawn, "gethostlatency", "--json")
    programs.append(ready([build("musl")]))  # also one that starts later
    for program in programs:
        go(program)
        wait_for_line(program, "done")
    _, rows, _ = json_lines(stop_tracing(tracer)[0])
    for program in programs:
        assert sum(row["pid"] == program.pid for row in rows) == 7


def test_an_allocator_of_the_programs_own(traced, build):
    flags = ("-DOWN_ALLOCATOR",)
    output, remarks = traced("dynamic", "memleak", "--json", "-o", "0", flags=flags)
    assert (97, 97 * 31) in [(row["count"], row["bytes"]) for row in json_lines(output)[1]]
    assert re.search(r"calls its own functions instead: .*malloc", remarks)
    done = usdtkit("funccount", "c:free", "--json", "-c", f"{build('dynamic', *flags)} quiet")
    assert sum(row["count"] for row in json_lines(done.stdout)[1]) >= 900


def test_an_allocator_in_another_library_is_named(build, ready):
    program = ready(["env", "LD_PRELOAD=libjemalloc.so.2", build("dynamic")])
    done = usdtkit("memleak", "-p", program.pid, "-d", "0.1")
    assert done.returncode == 0
    [line] = [line for line in done.stderr.splitlines() if "not traced" in line]
    assert "libjemalloc.so.2: " in line and "malloc" in line and "jemalloc:" in line
    traced = usdtkit("memleak", "-O", "jemalloc", "-p", program.pid, "-d", "0.1")
    assert "not traced" not in traced.stderr


if BIG_NODE:  # Debian's uses the system's libssl

    def test_tls_within_a_program(ready):
        node = ready(["node", "-e", "console.log('ready'); process.stdin.on('data', () => process.exit())"])
        with trace.Session(pid=node.pid) as session:
            session.uprobe("ssl", "SSL_read", "SSL_write").count()
            plan = session.plan()
            remarks = session.remarks
        assert {site.name for site in plan} == {"SSL_read", "SSL_write"}
        assert all(Path(site.path).name.startswith("node") for site in plan)
        assert any(f"process {node.pid} is without libssl: traced in " in remark for remark in remarks)
        assert_explained(
            usdtkit("funccount", "ssl:SSL_nosuch", "-p", node.pid), 4, "its own symbols do not include SSL_nosuch"
        )
        # What is no library's name may be a provider's: then no function of the program is meant.
        assert_explained(usdtkit("funccount", "app:main", "-p", node.pid), 4, "maps no 'app'")


LOADS = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.OpenSSL_version.restype = ctypes.c_char_p
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[2])):
    library.OpenSSL_version(0)
print("done", flush=True)
sys.stdin.readline()
"""


def test_libraries_of_one_name(tmp_path, ready, spawn, wait_for_line):
    """A wheel's own copy beside the system's: both are traced, and it is said that there are two."""
    [system] = [path for path in Path("/usr/lib/x86_64-linux-gnu").glob("libcrypto.so.3*") if not path.is_symlink()]
    copy = tmp_path / "libcrypto-3e69114b.so.3"
    shutil.copy(system, copy)
    ctypes.CDLL(str(system))
    programs = [ready([sys.executable, "-c", LOADS, path, str(number)]) for path, number in ((system, 97), (copy, 997))]
    pids = ",".join(str(program.pid) for program in programs)
    for where in (["-p", pids], []):
        explained = usdtkit("funccount", "crypto:OpenSSL_version", "--explain", "--json", *where)
        assert str(copy) in explained.stdout and "libcrypto.so.3" in explained.stdout
        assert "'crypto' means several files here, all of which are traced: " in explained.stderr
        assert str(copy) in explained.stderr
    tracer = start_tracing(spawn, "trace", "p:crypto:OpenSSL_version", "--json", "-p", pids)
    for program in programs:
        go(program)
        wait_for_line(program, "done")
        go(program)
    _, rows, _ = json_lines(end_of_tracing(tracer)[0])
    assert [sum(row["pid"] == program.pid for row in rows) for program in programs] == [97, 997]
