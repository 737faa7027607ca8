"""`usdtkit list` on files: what it takes, and what it says with -v, -vv, --functions and --json."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import pytest

from usdtkit.cli import main
from usdtkit.cli.progress import Progress

PROGRAM = """
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>
unsigned short shop_order_semaphore __attribute__((section(".probes")));
unsigned short shop_done_semaphore __attribute__((section(".probes")));
__attribute__((noinline)) int order_take(long id, const char *who) { STAP_PROBE2(shop, order, id, who); return id; }
int order_alias(long id, const char *who) __attribute__((alias("order_take")));
void real_value(double amount) { __asm__ volatile(STAP_PROBE_ASM(shop, done, 8f@%xmm0 -4@$-997)); }
int main(int count, char **arguments) { real_value(count); return order_take(count, arguments[0]); }
"""


@pytest.fixture
def shop(compile_c):
    return str(compile_c(PROGRAM, "-O1"))


@pytest.fixture
def listed(capsys):
    """listed(*arguments) -> lines of output; the command succeeds and says nothing else."""

    def run(*arguments):
        assert main(["list", *map(str, arguments)]) == 0
        output, errors = capsys.readouterr()
        assert errors == ""
        return output.splitlines()

    return run


def refused(capsys, *arguments):
    code = main(["list", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_plain(listed, shop):
    assert listed(shop) == [f"shop:order {shop}", f"shop:done {shop}"]
    assert listed("-l", shop, "shop:done") == [f"shop:done {shop}"]


@pytest.mark.parametrize(
    ("glob", "names"), [("shop:*", ["order", "done"]), ("ord*", ["order"]), ("*:d*", ["done"]), ("shop:done", ["done"])]
)
def test_globs_select(listed, shop, glob, names):
    assert listed(shop, glob) == [f"shop:{name} {shop}" for name in names]


def test_arguments_and_why_one_cannot_be_read(listed, shop):
    assert listed("-v", shop, "shop:order")[1:] == ["    arg1: i64", "    arg2: u64"]
    unreadable, constant = listed("-v", shop, "shop:done")[1:]
    assert unreadable.startswith("    arg1: f64 (unreadable: 8f@%xmm0: a floating-point or vector register")
    assert constant == "    arg2: i32"


def test_every_site(listed, shop):
    sites = [line.strip() for line in listed("-vv", shop, "shop:order") if line.startswith("    at ")]
    text = subprocess.run(["readelf", "-n", shop], capture_output=True, text=True, check=True).stdout
    pattern = r"Name: order\n\s+Location: 0x0*(\w+), Base: 0x\w+, Semaphore: 0x0*(\w+)\n\s+Arguments: (.*)"
    theirs = re.findall(pattern, text)
    assert len(sites) == len(theirs) >= 1
    for site, (address, semaphore, arguments) in zip(sites, theirs, strict=True):
        assert re.fullmatch(rf"at 0x{address} offset 0x\w+ semaphore 0x{semaphore} {re.escape(arguments)}", site)


def test_a_directory(listed, shop, tmp_path):
    for name in ("one", "two"):
        shutil.copy(shop, tmp_path / name)
    assert listed(tmp_path, "shop:done") == [f"shop:done {tmp_path}/one", f"shop:done {tmp_path}/two"]
    assert listed(f"{tmp_path}/*", "shop:done") == listed(tmp_path, "shop:done")


def test_functions(listed, shop):
    assert listed("--functions", "order_*", shop) == [f"p:{shop}:order_alias", f"p:{shop}:order_take"]
    assert listed("-r", "--functions", "^order_t", shop) == [f"p:{shop}:order_take"]
    assert listed("--functions", '"order_take"', shop) == [f"p:{shop}:order_take"]
    _, where, also = listed("-v", "--functions", "order_take", shop)
    assert re.fullmatch(r"    \d+ bytes at 0x\w+, a probe is (emulated|stepped)", where)
    assert also == "    also order_alias"


def test_functions_as_json(listed, shop):
    header, function = map(json.loads, listed("--json", "--functions", "order_take", shop))
    assert header["schema"] == "usdtkit.functions/1"
    assert (function["path"], function["name"], function["aliases"]) == (shop, "order_take", ["order_alias"])
    assert function["cost"] in ("emulated", "stepped")
    assert {type(function[name]) for name in ("address", "size", "file_offset")} == {int}


def test_versions_of_functions(listed):
    lines = listed("-v", "--functions", "pthread_create", "c")
    assert "version GLIBC_2." in lines[1]
    path = lines[0].partition(" ")[0].removesuffix("pthread_create")
    # Several versions at different addresses: the name with a version means one.
    both = [line for line in listed("--functions", "realpath", "c") if line.startswith(path)]
    assert sorted(both) == [f"{path}realpath@GLIBC_2.2.5", f"{path}realpath@GLIBC_2.3"]
    assert listed("--functions", "realpath@GLIBC_2.3", "c") == [f"{path}realpath@GLIBC_2.3"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--functions", "main"], 2, "needs a TARGET"),
        (["--functions", "(", "-r", "c"], 2, "not a regular expression"),
        (["-p", "no-such-program-997"], 4, "no process runs"),
        (["-p", "0"], 2, "not a process ID"),
        (["no-such-program-997"], 4, "nor a running program"),
        (["/bin/true"], 4, "no USDT probes in /bin/true"),
        (["shop997:none", "/bin/true"], 4, "there are no USDT probes"),
    ],
)
def test_what_is_wrong(capsys, arguments, code, words):
    found, message = refused(capsys, *arguments)
    assert (found, words in message) == (code, True), message


def test_a_glob_that_selects_nothing_names_the_nearest(capsys, shop):
    code, message = refused(capsys, shop, "shop:oder")
    assert code == 4
    assert "near: shop:order" in message


def test_progress_is_for_terminals(monkeypatch, capsys):
    monkeypatch.setattr("usdtkit.cli.progress._PATIENCE_S", 0)
    monkeypatch.setattr("usdtkit.cli.progress._BETWEEN_S", 0)
    with Progress() as progress:
        progress.count(997)
        assert list(progress.over([1, 2])) == [1, 2]
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "__stderr__", terminal)
        with Progress() as progress:
            progress.count(997)
            assert list(progress.over([1, 2])) == [1, 2]
        written = ""
        while not written.endswith("\r\x1b[K"):  # what is written at once may be read in pieces
            written += os.read(ours, 4096).decode()
    os.close(ours)
    assert "looking at files: 997" in written
    assert "[###############...............] 1 of 2 files" in written
    assert written.endswith("\r\x1b[K")
    assert capsys.readouterr().err == ""
