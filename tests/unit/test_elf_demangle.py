import re
import resource
import subprocess

import pytest

from usdtkit.elf import demangle
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import UnsupportedError

CPP = """
#include <string>
#include <vector>
namespace shop {
struct Basket {
    int add(int price) __attribute__((noinline));
    int add(const std::string &name, std::vector<int> *prices) const __attribute__((noinline));
    bool operator()(int) __attribute__((noinline));
};
int Basket::add(int price) { return price; }
int Basket::add(const std::string &name, std::vector<int> *prices) const { return name.size() + prices->size(); }
bool Basket::operator()(int n) { return n > 0; }
template <class T> __attribute__((noinline)) T twice(T value) { return value + value; }
template int twice<int>(int);
template <class T> struct Box { T put(int n, const char *text); };
template <class T> __attribute__((noinline)) T Box<T>::put(int n, const char *text) { return text[n]; }
template struct Box<long>;
namespace {
__attribute__((noinline, used)) int hidden(int n) { return n; }
}
}
extern "C" int plain(int n) { return n; }
int main() { return 0; }
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    subprocess.run(["g++", "-xc++", "-", "-O1", "-o", path], input=CPP, text=True, check=True)
    with Image.open(path) as image:
        yield image


def test_it_says_the_same_as_binutils(program):
    names = sorted({function.name for function in functions(program, "_Z*")})
    assert len(names) == 6
    theirs = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    ours = [re.sub("> >", ">>", name) for name in demangle.demangle(names)]
    assert ours == [re.sub("> >", ">>", line) for line in theirs.splitlines()]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("shop::Basket::add", ["add(int)", "add(std::"]),
        ("shop::Basket::add(int)", ["add(int)"]),
        ("shop::*::add(*string*)*", ["add(std::"]),
        ("shop::Basket::operator()", ["operator()(int)"]),
        ("shop::twice<*>", ["twice<int>(int)"]),
        ("shop::twi*", ["twice<int>(int)"]),
        ("shop::Box::p*", ["put(int, char const*)"]),
        ("shop::Box<long>::put(int, char const *)", ["put(int, char const*)"]),
        ("shop::*::put(*, long *)", []),
        ("shop::*::put(int, *const *)", ["put(int, char const*)"]),
        ("shop::(anonymous namespace)::hid*", ["hidden(int)"]),
        ("*::hidden", ["hidden(int)"]),
        ("shop::Basket::ad", []),
        ("Basket::add", []),
        (re.compile("^shop::.*::add"), ["add(int)", "add(std::"]),
        (re.compile(r"::put\(int, char const\*\)$"), ["put(int, char const*)"]),
        (re.compile("^shop::Basket::add$"), ["add(int)", "add(std::"]),
        (re.compile("^shop::Basket::ad$"), []),
    ],
)
def test_patterns_for_demangled_names(program, pattern, names):
    found = functions(program, pattern)
    assert len(found) == len(names)
    for name in names:
        assert any(name in function.demangled for function in found)


def test_a_regex_for_names_as_they_are(program):
    assert [function.name for function in functions(program, re.compile("^pl"))] == ["plain"]
    assert {function.name for function in functions(program, re.compile("Basket.*add"))} == {
        function.name for function in functions(program, "*Basket*add*")
    }


@pytest.mark.parametrize(
    ("name", "demangled"),
    [
        ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
        ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
        (
            "_ZN58_$LT$alloc..string..String$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
            "<alloc::string::String as core::fmt::Debug>::fmt",
        ),
        ("_ZN7$ud800$17h0123456789abcdefE", "?"),  # half of a character, which no file could take
        ("plain", ""),
        ("_Z", ""),
        ("_Zebra", ""),
        ("_Z1fi\nx", ""),
        ("_Z1fié", ""),
        ("_Z" + "9" * 5000, ""),
    ],
)
def test_names(name, demangled):
    assert demangle.demangle([name]) == [demangled]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("f(int)", "f"),
        ("a::b<c(d)>::e(f, g) const", "a::b<c(d)>::e"),
        ("void a::f<int>(int)", "a::f<int>"),
        ("(anonymous namespace)::f()", "(anonymous namespace)::f"),
        ("a::operator()(int) const", "a::operator()"),
        ("a::operator new(unsigned long)", "a::operator new"),
        ("a::operator<(a const&)", "a::operator<"),
        ("auto a::f()::{lambda(int)#1}::operator()(int) const", "a::f()::{lambda(int)#1}::operator()"),
        ("a::f(int) const &::'lambda'()::operator()(g) const", "a::f(int) const &::'lambda'()::operator()"),
        ("void (*a::f<int>(int))(char)", "a::f<int>"),
        ("decltype(auto) f<int>(int)", "f<int>"),
        ("decltype(x.f()) g<a>(a)", "g<a>"),
        ("f<&a::operator()>(int)", "f<&a::operator()>"),
        ("a& std::operator<< <b<char>>(a&, char const*)", "std::operator<< <b<char>>"),
        ("a::operator std::function<void (int)>() const", "a::operator std::function<void (int)>"),
        ("a::operator->() const", "a::operator->"),
        ("operator delete[](void*)", "operator delete[]"),
        ('a a::operator"" _km(unsigned long long)', 'a::operator"" _km'),
        ("void a::operators::f<int>(int)", "a::operators::f<int>"),
        ("f[abi:cxx11](int)", "f[abi:cxx11]"),
        ("app::f::<dyn Fn(u32) -> u8>", "app::f::<dyn Fn(u32) -> u8>"),
        ("core::ops::FnOnce::call_once{{vtable.shim}}", "core::ops::FnOnce::call_once{{vtable.shim}}"),
        ("non-virtual thunk to a::f()", "non-virtual thunk to a::f"),
        ("<alloc::string::String as core::fmt::Debug>::fmt", "<alloc::string::String as core::fmt::Debug>::fmt"),
        ("", ""),
    ],
)
def test_without_parameters(name, short):
    assert demangle.without_parameters(name) == short


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a::b<c<d>>::e<f>", "a::b::e"),
        ("app::f::<dyn Fn(u32) -> u8>", "app::f"),
        ("<a::B<c> as d::E<f>>::g", "<a::B as d::E>::g"),
        ("a::<impl b::C for u32>::d", "a::<impl b::C for u32>::d"),
        ("a::operator<<b>", "a::operator<<b>"),
        ("a::cooperator<b>::c", "a::cooperator::c"),
        ("a<b", "a<b"),
        ("a<b>>c", "a>c"),
        ("a::<impl b::C<d> for u32>::e", "a::<impl b::C for u32>::e"),
        ("a<" * 5000 + ">" * 5000, "a"),  # in one walk, because any symbol can have such a name
    ],
)
def test_without_arguments(name, plain):
    assert demangle.without_arguments(name) == plain


def bomb(levels):
    """A template whose arguments double at each level: a few hundred bytes that stand for 2**levels."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "_Z1f1AIiiE" + "".join(f"S_IS{digits[n]}_S{digits[n]}_E" for n in range(levels))


def test_a_name_that_grows_without_bound_costs_only_itself():
    names = ["_Z1fi", bomb(30), "_Z1gi", bomb(32), "_Z1hi", bomb(4)]
    results = demangle.demangle(names)
    assert results[:5] == ["f(int)", "", "g(int)", "", "h(int)"]
    assert results[5].startswith("f(A<")


def test_many_such_names_end():
    assert demangle.demangle([bomb(30)] * 997) == [""] * 997
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert demangle.demangle([bomb(16)] * 997) == [""] * 997
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(demangle, "find_spec", lambda name: None)
    assert demangle.demangle(["plain"]) == [""]
    with pytest.raises(UnsupportedError, match="pycxxfilt") as caught:
        demangle.demangle(["_Z1fi"])
    assert caught.value.hint == "pip install pycxxfilt"
