"""What conditions, values and formats of `usdtkit trace` mean, on a program whose every argument is known."""

import json
import os
import re
import subprocess

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, names, start_tracing, usdtkit

pytestmark = pytest.mark.machine

SIGNATURE = (
    "(int n, const char *name, const struct timespec *req, const unsigned char *data, size_t size, char six, "
    "short seven, unsigned eight, long nine, long ten, long eleven, const char *twelve)"
)


@pytest.fixture
def traced(compile_c, ready, spawn):
    """traced(*specs, options=()) -> (lines of the table behind the probe's name, messages).

    In the specs {} is the program, # the signature of work.
    """
    path = compile_c("work.c", "-O1")

    def run(*specs, options=()):
        program = ready([path, "97"])
        specs = [spec.replace("{}", str(path)).replace("#", SIGNATURE) for spec in specs]
        tracer = start_tracing(spawn, "trace", *specs, "-p", program.pid, *options)
        go(program)
        output, messages = end_of_tracing(tracer)
        rows = [re.split(r"(?:work|other|jobs):done +|work +", line, maxsplit=1)[1] for line in output.splitlines()[1:]]
        return rows, messages

    return run


CONDITIONS = [
    ("n < 7", 7),
    ("n % 2 == 1 && n > 90 || n == 0", 4),
    ("!(n >= 7)", 7),
    ('STRCMP("odd", name)', 48),
    ('STRCMP("od", name)', 0),
    ('STRNCMP("odyssey", name, 2)', 48),
    ('startswith(name, "od")', 48),
    ('contains(name, "ve")', 49),
    ('matches(name, "?d*")', 48),
    ('name == "even" && arg12 != "odd" && twelve == "twelfth"', 49),
    ("arg1 == 13 && (int)arg9 == -9 && arg10 == 10 && arg11 == 011", 0),
    ("arg1 == 13 && (int)arg9 == -9 && arg10 == 10 && arg11 == 11", 1),
    ("six == 'A' && seven == -7 && eight == 0x8 && nine < 0", 97),
    ("req->tv_nsec > 90000 && *(long *)(req + 0) == n", 6),
    ("*data == 1 && *(unsigned char *)(data + 2) == 0xfe", 97),
    ('str(data + 3, 2) == "xy" && $tgid == $pid && $uid == 0 && $comm != "sh"', 97),
    ("ctx->di == 5", 1),
    ("(n & 1) == 0 && n << 1 == 8", 1),
    ("~n == -6 && -n == -5", 1),
]
VALUES = [
    ('p:{}:work# (n == 9) "%d %s %6s|%-5d|%03u", n, name, name, seven, eight', "9 odd    odd|-7   |008"),
    ('p:{}:work# (n == 9) "%r|%s|%r", buf(data, 4), str(data + 3, 2), buf(data, size)', "0100fe78|xy|0100fe78"),
    ('p:{}:work# (n == 9) "%c%c %x %hd %lu", six, six + 1, nine, nine, req->tv_nsec', "AB fffffff7 -9 9000"),
    ('p:{}:work (arg1 == 9) "%hu %d %s", arg7, arg10, arg12', "65529 10 twelfth"),
    ('r:{}:work(int n) ($entry(n) == 9) "%d %d", $entry(n), retval', "9 -1"),
    ('r:{}:work(int n, char *name) (STRCMP("odd", $entry(name)) && $entry(n) > 94) "%s", $entry(name)', "odd"),
    ('u:{}:work:done (arg1 == 9) "%d %s %d", arg1, arg2, arg3', "9 odd 4"),
    ("r:{}:work (retval == 16)", "retval=16"),
    ("p:{}:work(int n, char *name) (n == 9)", 'n=9 name="odd"'),
]


def test_conditions(traced):
    specs = [f'p:{{}}:work# ({condition}) "@{index}@"' for index, (condition, _) in enumerate(CONDITIONS)]
    rows, messages = traced(*specs)
    counts = {condition: rows.count(f"@{index}@") for index, (condition, _) in enumerate(CONDITIONS)}
    assert counts == dict(CONDITIONS)
    assert "lost 0" in messages


def test_values(traced):
    rows, _ = traced(*(spec for spec, _ in VALUES))
    assert sorted(rows) == sorted(row for _, row in VALUES)


def test_probes_of_one_name_and_several_providers(traced):
    assert len(traced("u:{}:done")[0]) == 2 * 97 + 96
    assert traced('u:{}:other:done "%d", arg1')[0] == [str(65 - 7 + 8 - 9 + 10 + 11 + 116)] * 97


def test_the_end_after_some_events_and_equal_ones_once(traced):
    rows, _ = traced('u:{}:work:done "%s", arg2', options=["-M", "7"])
    assert rows == ["even", "odd", "even", "odd", "even", "odd", "even"]


def test_json_has_the_values_and_the_message(compile_c, ready, spawn):
    path = compile_c("work.c", "-O1")
    program = ready([path, "7"])
    spec = f'p:{path}:work{SIGNATURE} "%d is %s", n, name'
    tracer = start_tracing(spawn, "trace", spec, "-p", program.pid, "--json", "-C", "-U")
    go(program)
    _, events, summary = json_lines(end_of_tracing(tracer)[0])
    assert [event["arguments"] for event in events] == [{"n": n, "name": ("even", "odd")[n % 2]} for n in range(7)]
    assert [event["message"] for event in events] == [f"{n} is {('even', 'odd')[n % 2]}" for n in range(7)]
    assert {tuple(names(event["stack"][:2])) for event in events} == {("work", "main")}
    assert {event["cpu"] for event in events} <= set(range(os.sysconf("SC_NPROCESSORS_CONF")))
    assert (summary["hits"], summary["lost"]) == (7, 0)


def test_equal_events_once(compile_c, ready, spawn):
    path = compile_c("work.c", "-O1")
    program = ready([path, "97"])
    options = ("-A", "-M", "90", "-t", "-p", program.pid, "--json")
    tracer = start_tracing(spawn, "trace", f'p:{path}:work(int n, char *name) "%s", name', *options)
    go(program)
    _, events, _ = json_lines(end_of_tracing(tracer)[0])
    assert {event["message"]: event["count"] for event in events} == {"odd": 45, "even": 45}


def test_equal_events_with_the_frames_that_are_shown(compile_c, ready, spawn):
    path = compile_c("work.c", "-O1")
    program = ready([path, "97"])
    options = ("-A", "-M", "90", "-t", "-p", program.pid, "-U", "--python")
    tracer = start_tracing(spawn, "trace", f'p:{path}:work(int n) "called"', *options)
    go(program)
    output = end_of_tracing(tracer)[0]
    assert re.search(r"called\n-->COUNT 90\n +\[no python frames\]$", output, re.M), output


SHOP = """
#include <cstdio>
namespace ns { struct Shop { int stock; int sell(int n); int sell(double n); }; }
__attribute__((noinline)) int ns::Shop::sell(int n) { return stock -= n; }
__attribute__((noinline)) int ns::Shop::sell(double n) { return stock -= n > 1 ? 1 : 0; }
int main() { puts("ready"); fflush(stdout); getchar(); ns::Shop shop{99};
             for (int n = 0; n < 7; n++) { shop.sell(n); shop.sell(0.5); } printf("%d\\n", shop.stock); }
"""


@pytest.mark.parametrize(("name", "count"), [("sell", 14), ("sell(int)", 7), ("sell(double)", 7), ("*", 14)])
def test_names_of_cplusplus(name, count, tmp_path, ready, spawn):
    path = tmp_path / "shop"
    subprocess.run(["g++", "-xc++", "-", "-O1", "-o", path], input=SHOP, text=True, check=True)
    program = ready([path])
    tracer = start_tracing(spawn, "trace", f'p:{path}:ns::Shop::{name} "%d", arg2', "-p", program.pid)
    go(program)
    assert len(end_of_tracing(tracer)[0].splitlines()) == 1 + count


@pytest.mark.parametrize(
    ("specs", "code", "said"),
    [
        (["c:open (arg1 >)"], 2, "expected a value, not ')'\n  c:open (arg1 >)\n                ^\n"),
        (["do_sys_open"], 2, "usdtkit does not trace kernel functions and tracepoints"),
        (["c:open", "t:sched:sched_fork"], 2, "kernel functions"),
        (["c:no_such_function"], 4, "no function no_such_function in c"),
        (["no_such:thing"], 4, "no probe no_such:thing"),
        (["r:c:open (path == 0)"], 2, "path cannot be read when the function returns"),
        (["c:open+0x7fffffff"], 2, "open ends before 0x7fffffff"),
    ],
)
def test_errors(specs, code, said):
    done = usdtkit("trace", *specs)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_accepted_from_bcc_and_means_nothing():
    done = usdtkit("trace", "c:open", "-I", "linux/fs.h", "-K", "--explain", "--json")
    assert {json.loads(line).get("name") for line in done.stdout.splitlines()[1:]} == {"open"}
    assert done.stderr.count(" is ignored: ") == 2
    assert_explained(usdtkit("trace", "c:open", "-A"), 2, "-A needs a number of events")
