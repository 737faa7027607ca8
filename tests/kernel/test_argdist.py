"""argdist: counts and histograms of a program whose every value is known, in every format."""

import csv
import io
import json

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit

WORK = "(int n, const char *name, const struct timespec *req, const unsigned char *data, size_t size)"


@pytest.fixture
def counted(compile_c, ready, spawn):
    """counted(*options) -> the output of argdist over all that the program does; {} is the program's path."""
    path = compile_c("work.c", "-O1")

    def run(*options):
        program = ready([path])
        options = [str(option).replace("{}", str(path)) for option in options]
        tracer = start_tracing(spawn, "argdist", *options, "-p", program.pid, "-i", "60")
        go(program)
        output, messages = end_of_tracing(tracer)
        assert "--json" in options or messages.endswith(" hits, lost 0, from 1 file in 1 process\n")
        return output

    return run


COUNTS = [
    (f"p:{{}}:work{WORK}:size_t:size", {"0": 200, "1": 200, "2": 199, "3": 199, "4": 199}),
    (f"p:{{}}:work{WORK}:char*:name:n < 97", {"odd": 48, "even": 49}),
    (f'p:{{}}:work{WORK}:char*:name:STRCMP("odd", name)', {"odd": 498}),
    ("r:{}:work():int:$retval:(int)$retval < 0", {"-1": 498}),
    ("r:{}:work(int n):int:$entry(n) % 2:$latency > 0", {"0": 499, "1": 498}),
    ("u:{}:work:done():int:arg3", {"0": 200, "1": 200, "2": 199, "3": 199, "4": 199}),
    ("u:{}:other:done():int:arg1", {str(65 - 7 + 8 - 9 + 10 + 11 + 116): 997}),
    ("r:{}:work()", {"-1": 498} | {str(2 * n): 1 for n in range(0, 997, 2)}),
    ("p:{}:work()", {"": 997}),
    ("p:{}:work():pyframe:pycaller", {"None": 997}),  # a program without Python
    ("r:{}:work():pyframe:$entry(pycaller)", {"None": 997}),
]


def test_counts(counted):
    options = [option for number, (spec, _) in enumerate(COUNTS) for option in ("-C", f"{spec}#{number}")]
    _, rows, summary = json_lines(counted(*options, "--json"))
    found = {}
    for row in rows:
        found.setdefault(row["spec"], {})["".join(map(str, row["key"].values()))] = row["count"]
    assert found == {str(number): counts for number, (_, counts) in enumerate(COUNTS)}
    assert summary["full"] == 0


def test_two_values_are_one_key_in_every_format(counted):
    spec = f"p:{{}}:work{WORK}:char*,size_t:name,size"
    _, rows, _ = json_lines(counted("-C", spec, "--json"))
    found = {(row["key"]["name"], row["key"]["size"]): row["count"] for row in rows}
    assert len(found) == 10
    assert sum(found.values()) == 997
    table = counted("-C", spec)
    assert all(f"{count} name = {name}, size = {size}\n" in table for (name, size), count in found.items())
    lines = csv.DictReader(io.StringIO(counted("-C", spec, "--csv")))
    assert {tuple(json.loads(line["key"]).values()): int(line["count"]) for line in lines} == found


def test_the_highest_counts_and_several_specs(counted):
    _, rows, _ = json_lines(counted("-C", f"p:{{}}:work{WORK}:size_t:size", "-C", "p:{}:begin()", "-T", "2", "--json"))
    assert [(row["key"], row["count"]) for row in rows] == [({"size": 0}, 200), ({"size": 1}, 200), ({}, 996)]


def test_a_histogram(counted):
    spec = f"p:{{}}:work{WORK}:long:req->tv_nsec / 1000#microseconds"
    (row,) = json_lines(counted("-H", spec, "--json"))[1]
    assert (row["spec"], row["count"], row["sum"]) == ("microseconds", 997, sum(range(997)))
    assert (row["p50"], row["p90"], row["p99"]) == (504, 912, 976)  # 498, 897 and 987, within 1/32
    assert sum(bucket["count"] for bucket in row["buckets"] if bucket["low"] >= 512) == 997 - 512
    table = counted("-H", spec)
    assert "512 .. 1024     : 485" in table
    assert "count 997, average 498, total 496506, p50 504, p90 912, p99 976\n" in table


def by_key(rows):
    return {tuple(row["key"].values()): row for row in rows}


def test_statistics_by_several_keys(counted):
    spec = f"p:{{}}:work{WORK}:char*,int,int:name,n % 3,n"
    _, rows, summary = json_lines(counted("--stats", spec, "--json"))
    found = by_key(rows)
    assert len(found) == 6
    for odd, name in enumerate(("even", "odd")):
        for rest in range(3):
            values, row = [n for n in range(997) if n % 2 == odd and n % 3 == rest], found[name, rest]
            amounts = [row["count"], row["sum"], row["min"], row["max"]]
            assert amounts == [len(values), sum(values), values[0], values[-1]]
            assert row["average"] == sum(values) / len(values)
            assert (row["value"], list(row["key"])) == ("n", ["name", "n % 3"])
    assert [row["sum"] for row in rows] == sorted(row["sum"] for row in rows)
    assert summary["full"] == summary["unreadable"] == 0
    lines = csv.DictReader(io.StringIO(counted("--stats", spec, "--csv")))
    assert {tuple(json.loads(line["key"]).values()): int(line["sum"]) for line in lines} == {
        key: row["sum"] for key, row in found.items()
    }


@pytest.mark.parametrize(
    ("option", "heading", "amount"),
    [("-S", "SUM", sum), ("--avg", "AVG", lambda values: f"{sum(values) / len(values):.1f}"), ("--max", "MAX", max)],
)
def test_one_amount_in_a_table(option, heading, amount, counted):
    lines = counted(option, f"p:{{}}:work{WORK}:char*,size_t:name,size:n < 996").splitlines()
    at = next(number for number, line in enumerate(lines) if line.split() == ["COUNT", heading, "EVENT"])
    assert sorted((line.split() for line in lines[at + 1 :]), key=lambda words: words[-1]) == [
        ["498", str(amount([n % 5 for n in range(996) if n % 2 == odd])), "name", "=", name]
        for odd, name in enumerate(("even", "odd"))
    ]


def test_signed_values_and_no_keys(counted):
    """Of what the function returns, -1 in 498 of the calls; and of a time, whose unit is known."""
    options = ("--stats", "r:{}:work():int:(int)$retval", "--stats", "r:{}:work():u64:$latency#time", "--json")
    _, (returned, time), _ = json_lines(counted(*options))
    expected = [-1 if n % 2 else 2 * n for n in range(997)]
    assert (returned["min"], returned["max"], returned["sum"]) == (-1, 2 * 996, sum(expected))
    assert (time["value"], time["spec"], time["count"], time["key"]) == ("latency_ns", "time", 997, {})
    assert 0 < time["min"] <= time["average"] <= time["max"] <= time["sum"]


def test_amounts_and_counts_and_histograms_in_one_run(counted):
    """Each in the order of the options; a table leaves out what its rows have not."""
    specs = ("-S", f"p:{{}}:work{WORK}:size_t:size#bytes", "-C", "p:{}:begin()#jobs", "-H", f"p:{{}}:work{WORK}:int:n")
    _, (amount, jobs, numbers), _ = json_lines(counted(*specs, "--json"))
    total = sum(n % 5 for n in range(997))
    assert (amount["spec"], amount["sum"], jobs["spec"], jobs["count"]) == ("bytes", total, "jobs", 996)
    assert not {"average", "min", "max"} & amount.keys() and "sum" not in jobs
    assert (numbers["value"], numbers["p50"]) == ("n", 504)
    table = counted(*specs, "--avg", f"p:{{}}:work{WORK}:size_t:size#average")
    assert f"bytes\n     COUNT            SUM EVENT\n       997 {total:14} total calls\n" in table
    assert "jobs\n     COUNT EVENT\n       996 total calls\n" in table
    assert f"average\n     COUNT          AVG EVENT\n       997 {total / 997:12.1f} total calls\n" in table


def test_histograms_by_a_key(counted):
    spec = f"p:{{}}:work{WORK}:char*,int:name,n#numbers"
    _, rows, _ = json_lines(counted("-H", spec, "--json"))
    found = by_key(rows)
    assert {key: (row["count"], row["sum"]) for key, row in found.items()} == {
        ("even",): (499, sum(range(0, 997, 2))),
        ("odd",): (498, sum(range(1, 997, 2))),
    }
    assert all(abs(row["p90"] - 897) <= 897 / 32 for row in rows)
    assert "\nspec=numbers name=even\n" in counted("-H", spec)


def test_a_histogram_of_equal_steps(counted):
    (row,) = json_lines(counted("-H", f"p:{{}}:work{WORK}:int:n", "--linear", "0:1000:100", "--json"))[1]
    assert [bucket["count"] for bucket in row["buckets"]] == [100] * 9 + [97]


def rows_of_intervals(spawn, program, times, *options):
    """The row of each interval of argdist, in which the program fires so many times."""
    length = ("-i", "1.5", "-n", len(times))
    tracer = start_tracing(spawn, "argdist", *options, *map(str, length), "-p", program.pid, "--json")
    rows = []
    for number, count in enumerate(times):
        program.fire(count)
        if number == 0:
            assert json.loads(tracer.stdout.readline())["schema"] == "usdtkit.argdist/2"
        rows.append(json.loads(tracer.stdout.readline()))
    assert tracer.wait(20) == 0
    return rows


def test_intervals_are_new_or_cumulative(stepper, spawn):
    program = stepper()
    for options, expected in (([], [7, 13]), (["-c"], [7, 20])):
        rows = rows_of_intervals(spawn, program, (7, 13), "-C", f"u:{program.path}:step:plain()", *options)
        assert [row["count"] for row in rows] == expected


def test_amounts_of_an_interval_are_those_of_its_hits(stepper, spawn):
    """Also the maximum; with -c they count from the start."""
    program = stepper()
    for options, expected in (([], [(13, 12), (7, 6)]), (["-c"], [(13, 12), (20, 12)])):
        spec = f"u:{program.path}:step:plain():u64:arg1"
        rows = rows_of_intervals(spawn, program, (13, 7), "--max", spec, *options)
        assert [(row["count"], row["max"]) for row in rows] == expected


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 2, "nothing to count"),
        (["-H", "p:c:open(char *path):char*:path"], 2, "a histogram needs a number as the last value"),
        (["-H", "p:c:open()"], 2, "a histogram needs a number as the last value"),
        (["-S", "p:c:write(int fd, char *data):int,char*:fd,data"], 2, "a sum needs a number as the last value"),
        (["--stats", "p:c:write()"], 2, "this needs a number as the last value"),
        (["--avg", "p:c:write(int fd):int:length"], 2, "nothing here is called 'length'"),
        (["-C", "p:c:open"], 2, "expected ("),
        (["-C", "p::open()"], 2, "kernel functions"),
        (["-C", "p:c:open():int:nothing"], 2, "nothing here is called 'nothing'"),
        (["-C", "p:c:no_such_function()"], 4, "no function no_such_function"),
        (["-C", "p:c:open()", "--linear", "1:2"], 2, "is not LOW:HIGH:STEP"),
    ],
)
def test_errors(options, code, said):
    done = usdtkit("argdist", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_an_error_has_its_place():
    done = usdtkit("argdist", "-C", "p:c:open(char *path):int:pth")
    assert done.stderr.splitlines()[1:3] == ["  p:c:open(char *path):int:pth", "                           ^"]
    assert_explained(usdtkit("argdist", "-n", "0"), 2, "'0' is not a number above 0")
