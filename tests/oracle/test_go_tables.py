"""Go programs without symbols: names, addresses and lines against Go's own tools, which read the program with symbols
or, of programs that others have built, the same table."""

import re
import subprocess

import pytest
from programs.golang import DEBIAN, NEWEST, STRIPPED, go

from usdtkit.elf import golang, pclntab
from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.lookup import SymbolTable
from usdtkit.elf.symbols import functions
from usdtkit.errors import UnsupportedError

FLAGS = {
    "static": [],
    "pie": ["-buildmode=pie"],
    "cgo": ["-buildmode=pie"],  # linked by gcc, after C's own code
    "trimmed": ["-trimpath"],
}


def symbols(path, compiler):
    """{address: names} of what `go tool nm` calls code."""
    found = {}
    for line in go("tool", "nm", path, compiler=compiler).splitlines():
        if match := re.match(r"\s*([0-9a-f]+) [tT] (.+)", line):
            found.setdefault(int(match[1], 16), set()).add(match[2])
    return found


def lines(path, addresses):
    """[(function, FILE:LINE)] by `go tool addr2line`, "" for what it does not know."""
    asked = "".join(f"{at:#x}\n" for at in addresses)
    told = go("tool", "addr2line", path, compiler=NEWEST, input=asked).splitlines()
    assert len(told) == 2 * len(addresses)
    pairs = zip(told[0::2], told[1::2], strict=True)
    known = (line if re.search(r".:[1-9]", line) and name != "?" else "" for name, line in pairs)
    return list(zip(told[0::2], known, strict=True))


def plain(name):
    """A name without what the table leaves out, the types of a generic function."""
    while "[" in (shorter := re.sub(r"\[[^][]*\]", "", name)) and shorter != name:
        name = shorter
    return shorter


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
@pytest.mark.parametrize("kind", FLAGS)
def test_names_of_a_stripped_program(build_go, compiler, kind):
    with_symbols = build_go(*FLAGS[kind], compiler=compiler, cgo=kind == "cgo")
    stripped = build_go(*FLAGS[kind], STRIPPED, compiler=compiler, cgo=kind == "cgo")
    expected = symbols(with_symbols, compiler)
    with Image.open(stripped) as image, Image.open(with_symbols) as whole:
        assert image.section(".symtab") is None
        found = functions(image, re.compile(""))
        named = {function.name: function for function in functions(whole, re.compile(r"^(main|example)\."))}
        assert len(found) > 1400
        for function in found:
            names = {plain(name) for name in expected[function.address]}
            # Which is called in Go's way since Go 1.21.
            old = function.name == "runtime.publicationBarrier" and compiler == DEBIAN
            assert plain(function.name) + ".abi0" * old in names, hex(function.address)
            assert function.file_offset == image.file_offset(function.address)
        own = {function.name: function for function in found if function.name.startswith(("main.", "example."))}
        assert {plain(name) for name in own} == {plain(name) for name in named}
        assert "example.org/market/arith.Triple.abi0" in own
        for name in own.keys() & named.keys():
            assert own[name].address == named[name].address
            assert 0 <= own[name].size - named[name].size < 64  # what fills the space up to the next one counts as well
        assert {"main.(*Shop).Sell", "main.(*Shop).Sell-fm", "main.Price.Rounded", "main.serve.func1"} < own.keys()
        assert "main.inlined" not in own
        if kind != "cgo":  # the names of C functions are in no table of Go's
            others = {each.address for each in functions(whole, "*") if each.name != "runtime.etext"}
            assert {function.address for function in found} == others


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
@pytest.mark.parametrize("kind", FLAGS)
def test_lines_of_a_stripped_program(build_go, compiler, kind):
    with_symbols = build_go(*FLAGS[kind], compiler=compiler, cgo=kind == "cgo")
    stripped = build_go(*FLAGS[kind], STRIPPED, compiler=compiler, cgo=kind == "cgo")
    with Image.open(stripped) as image:
        table, lookup = pclntab.find(image), SymbolTable(image)
        addresses = [at + n for at in table.starts[:-1:7] for n in (0, 5, 21)]
        for function in functions(image, "main.*"):
            addresses += range(function.address, function.address + function.size, 3)
        compared = 0
        for at, (name, line) in zip(addresses, lines(with_symbols, addresses), strict=True):
            assert table.source(at) == lookup.source(at) == line, hex(at)
            if line:
                assert plain(lookup.find(at)[0].removesuffix(".abi0")) == plain(name.removesuffix(".abi0"))
                compared += 1
    assert compared > 1000


# Packages of npm, with the format of the table, what built the program, and how its functions are called.
SHIPPED = {
    "esbuild-linux-64@0.3.0": (2, "go1.14.2", "go-stack"),
    "esbuild-linux-64@0.9.7": (16, "go1.16.2", "go-stack"),
    "esbuild-linux-64@0.14.20": (16, "go1.17.6", "go"),
    "@esbuild/linux-x64@0.17.19": (20, "go1.20.4", "go"),
}


@pytest.mark.parametrize("package", SHIPPED)
def test_what_others_have_built(shipped, package):
    path, (table_format, version, convention) = shipped(package), SHIPPED[package]
    with Image.open(path) as image:
        table, lookup = pclntab.find(image), SymbolTable(image)
        assert table.version == table_format
        assert golang.build(image) == (version, "github.com/evanw/esbuild", "(devel)")
        addresses = [at + n for at in table.starts[:-1:3] for n in (0, 9)]
        for at, (name, line) in zip(addresses, lines(path, addresses), strict=True):
            assert lookup.source(at) == line
            if line:
                assert name == lookup.find(at)[0].removesuffix(".abi0")
        assert [function.convention for function in functions(image, "main.main")] == [convention]


def test_even_without_the_headers_of_sections(build_go, tmp_path):
    for compiler in (DEBIAN, NEWEST):
        whole = build_go(STRIPPED, compiler=compiler)
        path = tmp_path / "without"
        data = bytearray(whole.read_bytes())
        data[40:48], data[60:64] = bytes(8), bytes(4)
        path.write_bytes(data)
        with Image.open(path) as image, Image.open(whole) as other:
            assert not image.sections
            found = [(each.name, each.address, each.convention) for each in functions(image, "*")]
            assert found == [(each.name, each.address, each.convention) for each in functions(other, "*")]
            assert golang.build(image) == golang.build(other)


def test_what_strip_leaves(build_go, tmp_path):
    path = tmp_path / "stripped"
    subprocess.run(["strip", "-o", path, build_go()], check=True)
    with Image.open(path) as image, Image.open(build_go(STRIPPED)) as other:
        assert functions(image, "main.serve")[0].address == functions(other, "main.serve")[0].address


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
@pytest.mark.parametrize("kind", ["static", "cgo", "packed in another way", "not packed"])
def test_where_the_number_of_a_goroutine_lies(build_go, compiler, kind, tmp_path):
    """By the version, and of a version that nobody knows by DWARF."""
    path = build_go(*FLAGS.get(kind, []), compiler=compiler, cgo=kind == "cgo")
    if kind == "packed in another way":
        subprocess.run(["objcopy", "--compress-debug-sections=zlib-gnu", path, tmp_path / "packed"], check=True)
        path = tmp_path / "packed"
    elif kind == "not packed":
        subprocess.run(["objcopy", "--decompress-debug-sections", path, tmp_path / "unpacked"], check=True)
        path = tmp_path / "unpacked"
    unknown = tmp_path / "unknown"
    data = path.read_bytes()
    with Image.open(path) as image:
        expected = golang.goid_offset(image)
        at = image.section(".go.buildinfo").offset
    unknown.write_bytes(data[:at] + re.sub(rb"go1\.\d\d", b"go1.99", data[at:], count=1))
    with Image.open(unknown) as image:
        assert golang.minor_version(image) == 99
        assert golang.goid_offset(image) == expected == 152
    subprocess.run(["strip", unknown], check=True)
    with Image.open(unknown) as image:
        assert golang.goid_offset(image) == 0


@pytest.mark.parametrize("compiler", [DEBIAN, NEWEST], ids=["debian", "newest"])
@pytest.mark.parametrize("kind", ["static", "cgo"])
def test_exits_are_the_same_as_with_symbols(build_go, compiler, kind):
    """The space that fills up a function, and functions whose convention nobody says, change nothing."""

    def exits(path):
        found = {}
        with Image.open(path) as image:
            finder = ExitFinder(image)
            for function in functions(image, "*.*"):
                try:
                    found[function.address] = finder.find(function)
                except UnsupportedError:
                    found[function.address] = None
        return found

    flags, options = FLAGS[kind], {"compiler": compiler, "cgo": kind == "cgo"}
    expected, found = exits(build_go(*flags, **options)), exits(build_go(*flags, STRIPPED, **options))
    differing = {at for at in found if found[at] != expected[at]}
    with Image.open(build_go(*flags, STRIPPED, **options)) as image:
        # The first is called in Go's way since Go 1.21, and the second has another name with symbols, without a size.
        exempt = {each.address for each in functions(image, "runtime.publicationBarrier")} | {min(found)}
    assert differing <= exempt
    assert len([at for at in found if found[at] is not None]) > 1000
