"""Functions of which the compiler has only left copies, by their names in the source."""

import subprocess

import pytest

from usdtkit import targets
from usdtkit.elf.demangle import demangle, without_copy
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import NotFoundError

COPIES = """
static __attribute__((noinline)) long constant(const long *p, int n)
{
    long total = 0;
    for (int i = 0; i < n; i++)
        total += p[i] * 3;
    __asm__ volatile("" : "+r"(total));
    return total;
}
static __attribute__((noinline)) long both(const long *p) { return p[0] * 997; }
__attribute__((noinline)) long both_too(const long *p) { return p[1] + 1; }
static __attribute__((noinline, cold)) long seldom(const long *p) { return constant(p, 3) + both(p); }
long numbers[9];
int main(int count, char **arguments)
{
    numbers[0] = count;
    if (count > 9)
        return seldom(numbers);
    return constant(numbers, 3) + constant(numbers + 1, 3) + both(numbers) + both_too(numbers) == 17;
}
"""
FIRST = """
int helper2(int);
__attribute__((noinline)) static int helper(int i) { __asm__ volatile(""); return i + 1; }
int main(void)
{
    int total = 0;
    for (int i = 0; i < 5; i++)
        total += helper(i);
    for (int i = 0; i < 3; i++)
        total += helper2(i);
    return total == 997;
}
"""
SECOND = """
__attribute__((noinline)) static int helper(int i) { __asm__ volatile(""); return i + 2; }
int helper2(int i) { return helper(i); }
"""


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """A program of two files with a function of one name, made into one by the linker."""
    folder = tmp_path_factory.mktemp("linked")
    for name, text in (("first.c", FIRST), ("second.c", SECOND)):
        (folder / name).write_text(text)
    subprocess.run(["gcc", "-O2", "-flto", "first.c", "second.c", "-o", "program"], check=True, cwd=folder)
    return str(folder / "program")


def found(path, *patterns):
    return [function.name for function in targets.find_functions(str(path), patterns)]


def test_of_two_files_made_into_one(linked):
    assert sorted(found(linked, "helper")) == ["helper.lto_priv.0", "helper.lto_priv.1"]
    assert found(linked, "helper.lto_priv.1") == ["helper.lto_priv.1"]
    assert sorted(found(linked, "helper", "main")) == ["helper.lto_priv.0", "helper.lto_priv.1", "main"]
    for wrong in ("helpe", "elper", "helper.lto_priv", "helper."):
        with pytest.raises(NotFoundError, match="no function"):
            found(linked, wrong)
    with Image.open(linked) as image:
        assert functions(image, "helper") == []  # for those to whom names are names


def test_with_an_argument_that_is_always_the_same(compile_c):
    path = compile_c(COPIES, "-O2")
    assert found(path, "constant") == ["constant.constprop.0"]
    assert found(path, "both_too") == ["both_too"]
    (both,) = found(path, "both")
    assert both.startswith("both.")


def test_a_symbol_of_its_own_comes_first(compile_c):
    source = """
    __asm__(".globl f\\n.type f,@function\\nf: ret\\n.size f,.-f\\n"
            ".type f.part.0,@function\\nf.part.0: ret\\n.size f.part.0,.-f.part.0\\n"
            ".type g.cold,@function\\ng.cold: ret\\n.size g.cold,.-g.cold\\n"
            ".type g.isra.0.cold,@function\\ng.isra.0.cold: ret\\n.size g.isra.0.cold,.-g.isra.0.cold\\n"
            ".type h.constprop.0.isra.1,@function\\nh.constprop.0.isra.1: ret\\n.size h.constprop.0.isra.1, 1\\n"
            ".type h.other.0,@function\\nh.other.0: ret\\n.size h.other.0, 1\\n"
            ".type xh.isra.7,@function\\nxh.isra.7: ret\\n.size xh.isra.7, 1\\n");
    int main(void) { return 0; }
    """
    path = compile_c(source)
    assert found(path, "f") == ["f"]
    assert found(path, "h") == ["h.constprop.0.isra.1"]
    with pytest.raises(NotFoundError, match="no function g in"):
        found(path, "g")


def test_in_cpp_with_parameters_or_without(compile_c):
    before, main = COPIES.split("long numbers[9];")
    source = f"namespace ns {{ {before} }}\nusing namespace ns;\nlong numbers[9];{main}"
    path = compile_c(source, "-O2", compiler="g++")
    for pattern in ("ns::constant", "ns::constant(long const*, int)"):
        (name,) = found(path, pattern)
        assert name.endswith(".constprop.0")
    with pytest.raises(NotFoundError):
        found(path, "ns::constant(int)")


def test_names_of_copies():
    names = ["_ZN2nsL6helperEPKli.constprop.0.isra.0", "_ZN4core3fmt5write17h0123456789abcdefE.llvm.1234"]
    helper, write = demangle(names)
    assert without_copy(helper) == "ns::helper(long const*, int)"
    assert write.startswith("core::fmt::write (")
    assert without_copy(write) == "core::fmt::write"
    assert without_copy("f(int) (.a) g") == "f(int) (.a) g"
