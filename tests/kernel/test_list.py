"""`usdtkit list` on files, processes, commands and libraries, compared with readelf."""

import json
import os
import re
import shutil
import subprocess

import pytest
from commandline import assert_described, assert_explained, usdtkit

from usdtkit import Provider

pytestmark = pytest.mark.machine

TWO_SITES = """
#include <sys/sdt.h>
int main(int argc, char **argv)
{
    if (argc > 1)
        DTRACE_PROBE1(lab, step, argc);
    else
        DTRACE_PROBE1(lab, step, argv);
    return 0;
}"""


@pytest.fixture
def server(compile_c):
    return compile_c("mysql_usdt.c")


def listed(*arguments, **options):
    done = usdtkit("list", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def described(*arguments):
    header, *probes = map(json.loads, listed("--json", *arguments))
    assert header["schema"] == "usdtkit.list/1"
    assert_described("usdtkit.list/1", probes)
    return probes


def test_a_file(server):
    assert sorted(listed(server)) == [
        f"mysql:{name} {server}" for name in ("command__start", "query__done", "query__start")
    ]


def test_arguments_by_name(server):
    lines = listed("-v", server)
    at = lines.index(f"mysql:query__start {server}")
    names = ["query: str", "connection_id: u64", "database: str", "user: str", "host: str"]
    assert lines[at + 1 : at + 6] == [f"    {name}" for name in names]


def test_json_says_what_readelf_says(server):
    notes = subprocess.run(["readelf", "-n", "-W", server], text=True, capture_output=True, check=True).stdout
    pattern = r"Provider: (\w+)\s+Name: (\w+)\s+Location: (\w+), Base: (\w+), Semaphore: (\w+)\s+Arguments: (.*)"
    wanted = {
        (*names, *(int(x, 16) for x in numbers), text)
        for *names, a, b, c, text in re.findall(pattern, notes)
        for numbers in [(a, b, c)]
    }
    probes = described(server)
    found = {
        (probe["provider"], probe["name"], site["address"], site["base"], site["semaphore"], site["arguments_text"])
        for probe in probes
        for site in probe["sites"]
    }
    assert found == wanted
    build_id = re.search(r"Build ID: (\w+)", notes)[1]
    assert {(probe["path"], probe["build_id"]) for probe in probes} == {(str(server), build_id)}


def test_a_probe_at_two_places(compile_c):
    path = compile_c(TWO_SITES, "-O1")
    assert listed(path) == [f"lab:step {path} (2 sites)"]
    assert len(described(path)[0]["sites"]) == 2


def test_a_process(shop):
    probes = {probe["name"]: probe for probe in described("-p", shop.pid) if probe["provider"] == "shop"}
    assert probes["order__start"]["arguments"] == [
        {"name": "order_id", "type": "u64"},
        {"name": "customer", "type": "str"},
    ]
    assert probes["order__done"]["doc"] == "The order is answered."
    lines = listed("-v", "-p", shop.pid)
    at = next(number for number, line in enumerate(lines) if line.startswith("shop:order__start /"))
    assert lines[at + 1 : at + 4] == ["    An order arrives.", "    order_id: u64", "    customer: str"]


def test_a_command(server, tmp_path):
    shutil.copy(server, tmp_path / "shopd")
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert f"mysql:query__start {tmp_path}/shopd" in listed("shopd", env=os.environ | {"PATH": path})


def test_a_library_by_its_short_name():
    assert any(line.startswith("libstdcxx:throw /") and "libstdc++.so.6" in line for line in listed("stdc++"))


def test_everything_that_runs_and_what_may_run_later(shop):
    provider = Provider("later")
    provider.probe("hit", number="u64")
    path = provider.build()
    lines = listed()
    assert f"later:hit {path}" in lines
    # A file that lies in a directory of provider files and is mapped, too, is listed once.
    shops = [line for line in lines if line.startswith(f"shop:order__start {path.parent}/")]
    assert len(shops) == len(set(shops)) >= 1


def test_several_targets_of_which_one_has_none(server):
    assert listed(server, "ls") == listed(server) != []
    assert_explained(usdtkit("list", "ls"), 4, "no USDT probes in ls", "usdtkit trace p:ls:FUNCTION")
