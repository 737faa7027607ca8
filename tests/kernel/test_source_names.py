"""Functions of C++ and Rust by the names that stand in their source, with and without parameters."""

from collections import Counter

import pytest

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
