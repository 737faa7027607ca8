"""Functions of C++ and Rust by the names that stand in their source, with and without parameters."""

import json
import subprocess
from collections import Counter

import pytest
from commandline import usdtkit

from usdtkit import trace
from usdtkit.errors import NotFoundError

CPP = """
#include <cstdio>
#include <string>
#define NOINLINE __attribute__((noinline, noclone))
namespace shop {
class Cart {
public:
    NOINLINE long add(int item) { __asm__ volatile("" : "+r"(item)); return item; }
    NOINLINE long add(const std::string &item) { __asm__ volatile(""); return item.size(); }
    template <typename T> NOINLINE T twice(T value) { __asm__ volatile("" : "+r"(value)); return 2 * value; }
    NOINLINE ~Cart() { __asm__ volatile(""); }
};
}
int main()
{
    puts("ready"); fflush(stdout); getchar();
    shop::Cart cart;
    std::string name = "apple";
    for (int i = 0; i < 997; i++) { cart.add(i); if (i < 97) cart.add(name); if (i < 13) cart.twice(1L + i); }
    return 0;
}"""

# As rustc has named them: its older mangling with a hash, and its newer one.
RUST = """
#include <stdio.h>
long older(long) __asm__("_ZN6orders5store4save17h0123456789abcdefE");
long newer(long) __asm__("_RNvCs1234_6orders4load");
__attribute__((noinline, noclone)) long older(long value) { __asm__ volatile("" : "+r"(value)); return value; }
__attribute__((noinline, noclone)) long newer(long value) { __asm__ volatile("" : "+r"(value)); return value; }
int main(void)
{
    puts("ready"); fflush(stdout); getchar();
    for (long i = 0; i < 997; i++) { older(i); if (i < 97) newer(i); }
    return 0;
}"""


def counted(process, path, *names):
    """How often each function was hit, by the name that its events carry."""
    with trace.Session(pid=process.pid) as session:
        session.uprobe(path, *names).emit()
        session.start()
        process.communicate("go\n", timeout=60)
        hits = Counter(event.probe for event in session)
        assert session.summary().lost == 0
    return hits


ADD_NUMBER = "shop::Cart::add(int)"
ADD_STRING = "shop::Cart::add(std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char>> const&)"
TWICE = "long shop::Cart::twice<long>(long)"


@pytest.mark.parametrize(
    ("name", "hits"),
    [
        (ADD_NUMBER, {ADD_NUMBER: 997}),
        ("shop::Cart::add", {ADD_NUMBER: 997, ADD_STRING: 97}),
        ("shop::Cart::add(*string*)", {ADD_STRING: 97}),
        ("shop::Cart::tw*", {TWICE: 13}),
        ("shop::Cart::~Cart", {"shop::Cart::~Cart()": 1}),
        ("_ZN4shop4Cart3addEi", {"_ZN4shop4Cart3addEi": 997}),
    ],
)
def test_functions_of_cpp(compile_c, ready, name, hits):
    path = str(compile_c(CPP, "-O1", compiler="g++"))
    assert counted(ready([path]), path, name) == hits


@pytest.mark.parametrize(
    ("name", "hits"),
    [
        ("orders::store::save", {"orders::store::save": 997}),
        ("orders::load", {"orders::load": 97}),
        ("orders::*", {"orders::store::save": 997, "orders::load": 97}),
    ],
)
def test_functions_of_rust(compile_c, ready, name, hits):
    path = str(compile_c(RUST, "-O1"))
    assert counted(ready([path]), path, name) == hits


def test_in_one_word_and_as_a_pair(compile_c, ready):
    path = str(compile_c(CPP, "-O1", compiler="g++"))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        session.pair(trace.uprobe(f"{path}:{ADD_NUMBER}"), keep={"item": trace.arg(2).cast("i32")}).emit(
            "item", returned=trace.retval
        )
        session.start()
        process.communicate("go\n", timeout=60)
        assert [(event.item, event.returned) for event in session] == [(n, n) for n in range(997)]


def test_a_method_that_there_is_not(compile_c):
    path = str(compile_c(CPP, "-O1", compiler="g++"))
    with trace.Session() as session:
        with pytest.raises(NotFoundError, match="no function shop::Cart::remove"):
            session.uprobe(path, "shop::Cart::remove")


@pytest.fixture(scope="module")
def namesakes(request, tmp_path_factory):
    """A program of two files, with a static function `helper` in each."""
    sources = request.config.rootpath / "tests" / "programs"
    path = tmp_path_factory.mktemp("namesakes") / "program"
    subprocess.run(["gcc", "-O2", sources / "names.c", sources / "names_other.c", "-o", path], check=True)
    return str(path)


@pytest.mark.parametrize(
    ("tool", "command", "column"),
    [
        (("funccount",), "-c", "function"),
        (("funclatency", "-F"), "-c", "function"),
        (("funcslower", "-u", "0"), "-c", "function"),
        (("libcalls", "-l"), "-c", "function"),
        (("trace",), "-c", "probe"),
    ],
)
def test_every_tool_names_functions_of_one_name_apart(namesakes, tool, command, column):
    target = (namesakes, "helper") if tool[-1] == "-l" else (f"{namesakes}:helper",)
    done = usdtkit(*tool, *target, command, namesakes, "--json")
    assert done.returncode == 0, done.stderr
    hits = Counter()
    for row in map(json.loads, done.stdout.splitlines()):
        if column in row:
            hits[row[column]] += row.get("count", 1)
    assert sorted(hits.values()) == [97, 997]
    # By the name of one of them, only that is traced.
    for name, count in hits.items():
        assert name.startswith("helper@0x")
        done = usdtkit("funccount", f"p:{namesakes}:{name}", "-c", namesakes, "--json")
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(row["function"], row["count"]) for row in rows if "function" in row] == [(name, count)]


def test_a_name_in_quotes(compile_file, request):
    path = str(compile_file(["go", "build"], request.config.rootpath / "tests" / "programs" / "names.go"))
    for tool in ("trace", "funccount"):
        done = usdtkit(tool, f'p:{path}:"main.(*Shop).Sell"', "-c", path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["summary"]["hits"] == 997
    done = usdtkit("trace", f"p:{path}:main.(*Shop).Sell")
    assert done.returncode == 2
    assert 'in quotes: p:app:"main.(*Shop).Sell"' in done.stderr
