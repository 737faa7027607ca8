"""The tool stackcount: counts of known chains in every format, by function, glob, regular expression and probe."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from commandline import from_main, json_lines, names, usdtkit

ROOT = Path(__file__).parents[2]
CHAINS = {"main;left;work": 997, "main;right;deeper;work": 997, "main;descend;descend;descend;work": 997}


@pytest.fixture
def stackcount(spawn, wait_for_line, tmp_path):
    """stackcount(program, *options) -> (standard output, standard error), of the tool over all that a program does."""

    def run(program, *options):
        target = spawn(program, cwd=tmp_path)  # where Node may leave its logs
        wait_for_line(target, "ready")
        arguments = [str(option) for option in options]
        command = [sys.executable, "-m", "usdtkit", "stackcount", "-p", target.pid, *arguments]
        tool = spawn(command, cwd=ROOT, stderr=subprocess.PIPE)
        wait_for_line(tool, "Tracing", stream="stderr")
        target.stdin.write("\n")
        target.stdin.flush()
        target.stdin.close()
        output, errors = tool.communicate(timeout=30)
        assert tool.returncode == 0, errors
        Path(f"/tmp/perf-{target.pid}.map").unlink(missing_ok=True)
        return output, errors

    return run


@pytest.fixture
def chains(compile_c):
    return [compile_c("chains.c", "-O2", "-fno-omit-frame-pointer"), "997"]


JAVASCRIPT = """
function inner() { return %GetOptimizationStatus(outer); }
function outer() { return inner(); }
process.stdin.once('data', () => { for (let n = 0; n < 997; n++) outer(); process.exit(0); });
console.log('ready');
"""


def folded(output):
    found = {}
    for line in output.splitlines():
        stack, _, count = line.rpartition(" ")
        found[";".join(from_main(stack.split(";")))] = int(count)
    return found


def chain(row):
    """The stack of a row of --json, as `folded` has it."""
    return ";".join(from_main(names(row["stack"])[::-1]))


@pytest.mark.parametrize("spelling", ["{}:work", "p:{}:work", "{}:wor[k]"])
def test_folded(spelling, chains, stackcount):
    output, errors = stackcount(chains, spelling.format(chains[0]), "-f")
    assert folded(output) == CHAINS
    assert "lost 0" in errors


EACH = sum(range(997))


@pytest.mark.parametrize(
    ("spelling", "expression", "amounts"),
    [
        ("{}:work", "arg1", dict.fromkeys(CHAINS, EACH)),
        ("p:{}:work(long n)", "n * 2 + 1", dict.fromkeys(CHAINS, 2 * EACH + 997)),
        ("{}:work(long n) (n < 31)", "0 - n", dict.fromkeys(CHAINS, -sum(range(31)))),
        ("r:{}:bare", "1", None),
        ("r:{}:bare(long n) ($latency > 0)", "$entry(n)", None),
    ],
)
def test_sums_of_a_value(spelling, expression, amounts, chains, stackcount):
    output, _ = stackcount(chains, spelling.format(chains[0]), "--sum", expression, "--json")
    _, rows, summary = json_lines(output)
    if amounts is None:
        assert sum(row["sum"] for row in rows) == 3 * (997 if expression == "1" else EACH)
    else:
        assert {chain(row): row["sum"] for row in rows} == amounts
        assert {row["count"] for row in rows} == {31 if expression == "0 - n" else 997}
    assert summary["no_stack"] == summary["full"] == 0


def test_folded_stacks_weigh_what_was_summed_up(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:work(long n) (n % 2)", "--sum", "n", "-f")
    assert folded(output) == dict.fromkeys(CHAINS, sum(range(1, 997, 2)))
    output, _ = stackcount(chains, f"{chains[0]}:work", "--sum", "arg1")
    assert output.count(f"\n    {EACH} in 997 hits\n") == 3


def test_stacks_by_latency(chains, stackcount):
    """The time of the outer call is that of the inner ones and more, and each stack is that of the entry."""
    output, _ = stackcount(chains, f"{chains[0]}:descend", "--by-latency", "--json")
    _, rows, summary = json_lines(output)
    times = {chain(row): row["total_ns"] for row in rows}
    outer = [f"main{';descend' * depth}" for depth in (1, 2, 3)]
    assert sorted(times) == outer
    assert times[outer[0]] > times[outer[1]] > times[outer[2]] > 0
    assert ({row["count"] for row in rows}, summary["hits"]) == ({997}, 3 * 997)
    output, _ = stackcount(chains, f"p:{chains[0]}:descend(int depth, long n) (depth == 3 && n < 97)", "--by-latency")
    assert re.search(r"^  descend\n  main\n(?:  .*\n)*    \S+ [um]s in 97 hits\n", output, re.M)
    assert output.count(" hits\n") == 1
    output, _ = stackcount(chains, f"{chains[0]}:descend", "--by-latency", "-f")
    assert folded(output).keys() == set(outer)


def test_a_regular_expression(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:^(work|bare)$", "-r", "-f")
    bare = {chain.replace("work", "bare"): count for chain, count in CHAINS.items()}
    assert folded(output) == CHAINS | bare


def test_a_probe(compile_c, stackcount):
    source = (
        (ROOT / "tests/programs/chains.c")
        .read_text()
        .replace("sum += n; }\n__", "DTRACE_PROBE(chain, worked); sum += n; }\n__")
    )
    path = compile_c("#include <sys/sdt.h>\n" + source, "-O2", "-fno-omit-frame-pointer")
    for spelling in ("u:{}:chain:worked", "u::chain:worked", "u:{}:worked", "u:{}:chain:*"):
        output, _ = stackcount([path, "997"], spelling.format(path), "-f")
        assert folded(output) == CHAINS


def test_the_default_output(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:work", "-P", "-s", "-T")
    time, *blocks = output.strip().split("\n\n") if output.count("\n\n") > 2 else output.strip().split("\n", 1)
    assert re.match(r"\d\d:\d\d:\d\d", time)
    shown = "\n\n".join(blocks)
    assert shown.count("\n    997") == 3
    assert len(re.findall(r"^  work\+0x0\n  left\+0x[0-9a-f]+\n  main\+0x[0-9a-f]+$", shown, re.M)) == 1
    assert re.search(r"^    \w+ \[\d+\]$", shown, re.M)


def test_addresses(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:work", "-v")
    assert len(re.findall(r"^  0x[0-9a-f]{16} work$", output, re.M)) == 3


def test_json(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:work", "--json", "-P")
    header, rows, summary = json_lines(output)
    assert header["schema"] == "usdtkit.stackcount/2"
    assert {chain(row): row["count"] for row in rows} == CHAINS
    assert {row["comm"] for row in rows} == {Path(chains[0]).name[:15]}
    assert summary["hits"] == 3 * 997
    assert summary["no_stack"] == 0


def test_frames_of_one_kind(chains, stackcount):
    """A program in C has no functions of Python: all its stacks are one then."""
    assert folded(stackcount(chains, f"{chains[0]}:work", "-f", "--native")[0]) == CHAINS
    output, _ = stackcount(chains, f"{chains[0]}:work", "--python")
    assert re.fullmatch(rf"\n  \[no python frames\]\n    {3 * 997}\n", output)
    _, rows, _ = json_lines(stackcount(chains, f"{chains[0]}:work", "--python", "--json")[0])
    assert [(row["stack"], row["count"]) for row in rows] == [([], 3 * 997)]


def test_csv(chains, stackcount):
    output, _ = stackcount(chains, f"{chains[0]}:work", "--csv")
    rows = list(csv.DictReader(io.StringIO(output)))
    assert folded("\n".join(f"{row['stack']} {row['count']}" for row in rows)) == CHAINS


def test_intervals_add_up(compile_c, stackcount):
    program = [compile_c("paths.c", "-O0"), "5", "20000"]
    output, _ = stackcount(program, f"{program[0]}:work", "-i", "0.05", "--json", "-T")
    _, rows, summary = json_lines(output)
    assert sum(row["count"] for row in rows) == summary["hits"] == 32 * 20000
    assert len({row["time"][:21] for row in rows}) > 1


def test_a_command_from_its_start(chains):
    done = usdtkit("stackcount", f"{chains[0]}:work", "-f", "-c", f"{chains[0]} 997")
    assert done.returncode == 0, done.stderr
    # Before main stand the C library's own frames, whose names only its debug symbols tell.
    found = [line[line.index(";main;") + 1 :].rpartition(" ") for line in done.stdout.splitlines() if ";main;" in line]
    assert {stack: int(count) for stack, _, count in found} == CHAINS


def test_what_would_be_attached_to(chains):
    done = usdtkit("stackcount", f"{chains[0]}:^(work|bare)$", "-r", "--explain", "--json")
    assert [line["name"] for line in map(json.loads, done.stdout.splitlines()[1:])] == ["bare", "work"]


@pytest.mark.parametrize(
    ("pattern", "options", "code", "said"),
    [
        ("malloc", [], 2, "'malloc' does not name a library: usdtkit does not trace kernel functions"),
        ("c:no_such_function", [], 4, "no function no_such_function"),
        ("c:(", ["-r"], 2, "is not a regular expression"),
        ("c:^no_such_function$", ["-r"], 4, "no function ^no_such_function$"),
        ("u:c:no:probe", [], 4, "no probe"),
        ("c:malloc (bytes > 1)", ["--sum", "arg1"], 2, "c:malloc (bytes > 1)\n            ^"),
        ("c:malloc(size_t size)", ["--sum", "size + bytes"], 2, "size + bytes\n         ^"),
        ("c:malloc", ["--sum", "arg1", "--by-latency"], 2, "not allowed with"),
        ("u:c:libc:setjmp", ["--by-latency"], 2, "this is not a function"),
    ],
)
def test_errors(pattern, options, code, said):
    done = usdtkit("stackcount", pattern, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_functions_of_javascript(stackcount):
    """By their names, with their counts, from a program that has ended: V8 tells perf of them while it runs."""
    node = shutil.which("node")
    linked = subprocess.run(["ldd", node], text=True, capture_output=True, check=True).stdout
    [library] = re.findall(r"/\S+/libnode\.so\S*", linked) or [node]  # Debian's program is a small one
    options = ("--perf-basic-prof", "--interpreted-frames-native-stack", "--allow-natives-syntax")
    # Called by the code that V8 makes, so that nothing compiled without frame pointers lies between.
    called = f"{library}:_ZN2v88internal29Runtime_GetOptimizationStatusE*"
    output, errors = stackcount([node, *options, "-e", JAVASCRIPT], called, "-f")
    found = Counter()
    for line in output.splitlines():
        stack, _, count = line.rpartition(" ")
        script = [
            name[1] for frame in stack.split(";") if (name := re.match(r"(?:JS|LazyCompile):[~*^]?(\w+) ", frame))
        ]
        found[tuple(script[-2:])] += int(count)
    assert found == {("outer", "inner"): 997}, errors
