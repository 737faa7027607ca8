"""Where functions of Go, Rust and C++ leave, against the listings of objdump and of Go's own disassembler."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import UnsupportedError

PROGRAMS = Path(__file__).parents[1] / "programs"
CACHE = Path("~/.cache/usdtkit-test/go").expanduser()
CPP = """
#include <stdexcept>
#include <string>
#include <vector>
struct counted { int &total; ~counted() { total++; } };
__attribute__((noinline)) int leaf(int n) { return n * 997; }
__attribute__((noinline)) int throws(int n) { if (n % 3 == 0) throw std::runtime_error("no"); return leaf(n) + 1; }
__attribute__((noinline)) int cleans(int n, int &total) { counted one{total}; return throws(n) + throws(n + 1); }
__attribute__((noinline)) int catches(int n, int &total) {
  try { return cleans(n, total); }
  catch (const std::runtime_error &error) { return -1; } catch (int code) { return code; }
}
__attribute__((noinline)) std::string names(int n) {
  switch (n) { case 0: return "none"; case 1: return "one"; case 2: return std::string(n, 'a'); case 3: return "three";
  case 4: return std::to_string(n); case 5: return {}; default: return std::to_string(leaf(n)) + "!"; }
}
int main(int count, char **) {
  int total = 0, sum = 0;
  for (int n = 0; n < 99; n++) sum += catches(n + count, total) + names(n % 9).size();
  return sum + total == 17;
}
"""


@pytest.fixture(scope="module")
def go_program(tmp_path_factory):
    path = tmp_path_factory.mktemp("go") / "shapes"
    settings = {**os.environ, "GOCACHE": str(CACHE), "GO111MODULE": "off", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", path, PROGRAMS / "shapes.go"], check=True, env=settings)
    return path


def listing(command):
    """{function: [(address, bytes, text)]} of a disassembler's output."""
    found, current = {}, []
    for line in subprocess.run(command, text=True, capture_output=True, check=True).stdout.splitlines():
        if match := re.match(r"TEXT (\S+)\(SB\)|[0-9a-f]+ <(.+)>:$", line):
            current = found.setdefault(match[1] or match[2], [])
        elif match := re.match(r"\s+\S+:\d+\s+0x(\w+)\s+(\w+)\s+(.*\S)|\s+(\w+):\t([0-9a-f ]+)\t(.*)", line):
            current.append(
                (int(match[1] or match[4], 16), len(bytes.fromhex(match[2] or match[5])), match[3] or match[6])
            )
    return found


def test_go(go_program):
    """All returns, also those to which only a recovered panic leads; a call is counted behind the stack check."""
    listed = listing(["go", "tool", "objdump", "-s", ".", str(go_program)])
    compared = checked = 0
    with Image.open(go_program) as image:
        finder = ExitFinder(image)
        shift = image.section(".text").address - image.section(".text").offset
        by_name = {function.name: function for function in functions(image, "*.*")}
        for name, function in by_name.items():
            if name.endswith(".abi0") or name not in listed:
                continue
            lines = [line for line in listed[name] if line[0] - function.address < function.size]
            returns = [address for address, _, text in lines if text == "RET"]
            if not returns and not any(text.startswith("JMP") for *_, text in lines):
                with pytest.raises(UnsupportedError, match="does not return"):
                    finder.find(function)
                continue
            try:
                found = finder.find(function)
            except UnsupportedError as error:
                assert not returns or "it switches stacks" in error.message
                continue
            own = [site.file_offset + shift for site in found.sites if not site.shared]
            assert [at for at in own if at in returns] == returns, name
            assert not found.is_leaf
            grows = any("CALL runtime.morestack" in text for *_, text in lines)
            branch = next(((at, size) for at, size, text in lines if re.match("JBE|JLS|JCS|JB ", text)), (0, 0))
            if name.startswith("main."):
                checked += grows
                assert found.entry + shift == (sum(branch) if grows else function.address), name
            assert (found.entry + shift > function.address) == grows, name
            compared += 1
        for name in ("runtime.systemstack", "runtime.gogo", "runtime.memmove.abi0", "runtime.mcall"):
            for function in functions(image, name):
                with pytest.raises(UnsupportedError, match=r"assembler code|switches stacks|does not return"):
                    finder.find(function)
    assert compared > 1000
    assert checked >= 4


def test_go_by_an_older_compiler_is_refused(go_program, tmp_path):
    with Image.open(go_program) as image:
        section = image.section(".go.buildinfo")
    data = bytearray(go_program.read_bytes())
    at = data.index(b"go1.", section.offset)
    data[at : at + 6] = b"go1.16"
    path = tmp_path / "older"
    path.write_bytes(data)
    with Image.open(path) as image, pytest.raises(UnsupportedError, match=r"Go before 1\.17"):
        ExitFinder(image).find(functions(image, "main.leaf")[0])


@pytest.mark.parametrize("language", ["rust", "c++ -O2", "c++ -O0"])
def test_all_returns_of_compiled_code(language, compile_c, tmp_path):
    if language == "rust":
        path = tmp_path / "shapes"
        subprocess.run(["rustc", "-O", "--edition=2018", "-o", path, PROGRAMS / "shapes.rs"], check=True)
        names = ["*shapes*", "*alloc*", "*core*fmt*"]
    else:
        path, names = compile_c(CPP, language[-3:], compiler="g++"), ["*"]
    listed = listing(["objdump", "-d", "-w", str(path)])
    compared = 0
    with Image.open(path) as image:
        finder = ExitFinder(image)
        for function in functions(image, *names):
            if function.name not in listed or function.size == 0:
                continue
            inside = range(function.address, function.address + function.size)
            returns = {at for at, _, text in listed[function.name] if re.match(r"(repz )?ret", text) and at in inside}
            try:
                found = finder.find(function)
            except UnsupportedError as error:
                assert "does not return" in error.message or function.name in ("_start", "_init", "_fini"), error
                assert not returns
                continue
            own = {site.file_offset for site in found.sites if site.kind == "return" and not site.shared}
            assert own == {image.file_offset(at) for at in returns}, function.name
            compared += 1
    assert compared > (100 if language == "rust" else 5)
