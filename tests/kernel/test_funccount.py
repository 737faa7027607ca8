"""funccount: known numbers of calls and hits, of many functions at once, in every format."""

import csv
import io
import json

import pytest
from commandline import end_of_tracing, go, json_lines, start_tracing, usdtkit

CALLS = {"work": 997, "begin": 996, "finish": 996, "main": 0}


@pytest.fixture
def counted(compile_c, ready, spawn):
    """counted(pattern, *options) -> (output, messages) of all that the program does; {} is its path."""
    path = compile_c("work.c", "-O1")

    def run(pattern, *options):
        program = ready([path])
        tracer = start_tracing(spawn, "funccount", pattern.replace("{}", str(path)), "-p", program.pid, *options)
        go(program)
        return end_of_tracing(tracer)

    return run


@pytest.mark.parametrize(
    ("pattern", "options", "names"),
    [
        ("{}:work", [], ["work"]),
        ("p:{}:[bf]*", [], ["begin", "finish"]),
        ("{}:^(work|begin|main)$", ["-r"], ["begin", "work"]),
        ("u:{}:work:done", [], ["work:done"]),
        ("u:{}:done", [], ["jobs:done", "other:done", "work:done"]),
        ("u:{}:^(jobs|work):.", ["-r"], ["jobs:done", "jobs:start", "work:done"]),
        ("u::jobs:*", [], ["jobs:done", "jobs:start"]),
        ("jobs:*", [], ["jobs:done", "jobs:start"]),
        ("work:done", [], ["work:done"]),
        ("{}:work", ["--comm", "other"], []),
    ],
)
def test_patterns(pattern, options, names, counted):
    _, rows, summary = json_lines(counted(pattern, "--json", *options)[0])
    calls = CALLS | {"work:done": 997, "other:done": 997, "jobs:start": 996, "jobs:done": 996}
    assert {row["function"]: row["count"] for row in rows} == {name: calls[name] for name in names}
    assert summary["lost"] == summary["full"] == 0


@pytest.mark.parametrize(
    ("pattern", "options", "counts"),
    [
        ("p:{}:work (arg1 < 97)", [], {"work": 97}),
        ('{}:work(int n, char *name) (n % 3 == 0 && STRCMP("odd", name))', [], {"work": 166}),
        ("p:{}:[fw]*(int n) (n == 0)", [], {"work": 1, "finish": 498}),
        ("{}:^(work|finish)$ ((int)arg1 == 1)", ["-r"], {"work": 1, "finish": 498}),
        ("r:{}:work ((int)retval < 0)", [], {"work": 498}),
        ("r:{}:work(int n) ($latency > 0 && $entry(n) < 31)", [], {"work": 31}),
        ("u:{}:jobs:* (arg1 < 13)", [], {"jobs:start": 13, "jobs:done": 13}),
        ("jobs:done (arg1 < 13 && arg2)", [], {"jobs:done": 6}),
        ("u:{}:^(jobs|work):. (arg1 == 3)", ["-r"], {"jobs:start": 1, "jobs:done": 1, "work:done": 1}),
        ('work:done (contains(arg2, "v"))', [], {"work:done": 499}),
    ],
)
def test_conditions(pattern, options, counts, counted):
    _, rows, summary = json_lines(counted(pattern, "--json", *options)[0])
    assert {row["function"]: row["count"] for row in rows} == counts
    assert summary["lost"] == summary["full"] == summary["unreadable"] == 0


@pytest.mark.parametrize(
    "pattern", ['"shop::sell(int)" (arg1 < 31)', "shop::sell(int) (arg1 < 31)", "shop::* (arg1 < 31)"]
)
def test_a_condition_behind_a_name_of_the_source(pattern, compile_c):
    source = """
    namespace shop { __attribute__((noinline)) void sell(int n) { __asm__ volatile("" : : "r"(n)); } }
    int main() { for (int n = 0; n < 97; n++) shop::sell(n); }
    """
    path = compile_c(source, "-O1", compiler="g++")
    done = usdtkit("funccount", f"p:{path}:{pattern}", "-c", path, "--json")
    assert done.returncode == 0, done.stderr
    assert [(row["function"], row["count"]) for row in json_lines(done.stdout)[1]] == [("shop::sell(int)", 31)]


def test_the_table_and_csv(counted):
    output, messages = counted("{}:[bw]*", "-T")
    assert [line.split() for line in output.splitlines()[3:]] == [["FUNC", "COUNT"], ["begin", "996"], ["work", "997"]]
    assert messages.endswith("1,993 hits, lost 0, from 1 file in 1 process\n")
    rows = csv.DictReader(io.StringIO(counted("{}:[bw]*", "--csv")[0]))
    assert {row["function"]: int(row["count"]) for row in rows} == {"begin": 996, "work": 997}


def test_more_than_a_thousand_functions(spawn, wait_for_line):
    done = usdtkit("funccount", "c:*", "--explain", "--json")
    assert len(done.stdout.splitlines()) > 2000
    done = usdtkit("funccount", "c:*", "-c", "cat /etc/hostname", "--json", prefix=["env", "LC_ALL=C"])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"time"')]
    assert len(rows) > 10


def test_functions_that_the_kernel_refuses_are_named_in_one_line(compile_c):
    functions = "".join(f'NAMED(bad_{n}, "lock incl (%rdi)");' for n in range(31))
    path = compile_c(
        '#define NAMED(name, code) __asm__(".globl " #name "; .type " #name ", @function; " #name ": " code "; ret; '
        f'.size " #name ", . - " #name)\n{functions}\nvoid work(void) {{}}\nint main(void) {{ work(); return 0; }}',
        "-O0",
    )
    for option, ends in ((), ", bad_8 and 1 more"), (["-v"], ", bad_9"):
        done = usdtkit("funccount", f"{path}:[bw]*", *option, "-c", path)
        (line,) = [line for line in done.stderr.splitlines() if "not attached" in line]
        assert line.startswith(f"usdtkit: not attached: 31 in {path}, because the kernel cannot probe the instruction")
        assert ": bad_0, bad_1, bad_10, " in line and line.endswith(ends)
        assert done.stdout.split()[-2:] == ["work", "1"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["vfs_read"], 2, "kernel functions"),
        (["t:sched:sched_fork"], 2, "kernel functions"),
        (["c:no_such_*"], 4, "no function no_such_* in c"),
        (["u:c:no:such"], 4, "no probe no:such"),
        (["c:(", "-r"], 2, "is not a regular expression"),
        (["c:open (arg1 >)"], 2, "expected a value, not ')'"),
        (["c:str* (length > 1)"], 2, "nothing here is called 'length'"),
        (['c:open (arg1) "%d", arg1'], 2, "only a target and a condition are expected here"),
    ],
)
def test_errors(options, code, said):
    done = usdtkit("funccount", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_name_of_which_only_copies_are_left(compile_c):
    """It counts under its own name. This one lacks an argument, because that is always the same."""
    source = """
    static __attribute__((noinline)) long times(const long *p, int n)
    {
        long total = 0;
        for (int i = 0; i < n; i++)
            total += p[i] * 3;
        __asm__ volatile("" : "+r"(total));
        return total;
    }
    long numbers[9];
    int main(void)
    {
        long total = 0;
        for (int n = 0; n < 997; n++)
            total += times(numbers + n % 2, 3);
        return total == 1;
    }
    """
    path = compile_c(source, "-O2")
    done = usdtkit("funccount", f"{path}:times", "-c", path, "--json")
    assert done.returncode == 0, done.stderr
    _, rows, _ = json_lines(done.stdout)
    assert [(row["function"], row["count"]) for row in rows] == [("times.constprop.0", 997)]
