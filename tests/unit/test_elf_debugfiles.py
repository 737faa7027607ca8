"""Symbols of stripped files, in every place where distributions keep them."""

import lzma
import os
import subprocess
from pathlib import Path

import pytest

from usdtkit.elf import debugfiles
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import Addresses, functions

PROGRAM = """
static int counter;
__attribute__((noinline)) static int hidden(int n) { return counter += n; }
int main(int count, char **arguments) { return hidden(count) - count; }
"""


@pytest.fixture
def built(compile_c, tmp_path):
    """(the program with its symbols, a copy without, its debug file)"""
    whole, stripped, debug = compile_c(PROGRAM, "-Wl,--build-id"), tmp_path / "program", tmp_path / "program.debug"
    run("objcopy", "--only-keep-debug", whole, debug)
    run("objcopy", "--strip-all", whole, stripped)
    return whole, stripped, debug


def run(*command):
    subprocess.run(command, check=True)


def find(path, name="hidden"):
    with Image.open(path) as image:
        return [(function.address, function.file_offset, function.path) for function in functions(image, name)]


def same(whole, stripped):
    return [(address, offset, str(stripped)) for address, offset, _ in find(whole)]


def test_without_debug_data_there_is_nothing(built):
    whole, stripped, _ = built
    assert len(find(whole)) == 1
    assert find(stripped) == []


def test_by_build_id(built, tmp_path, monkeypatch):
    whole, stripped, debug = built
    with Image.open(stripped) as image:
        number = image.build_id
    place = tmp_path / "debug/.build-id" / number[:2] / f"{number[2:]}.debug"
    place.parent.mkdir(parents=True)
    debug.rename(place)
    monkeypatch.setattr(debugfiles, "_DIRECTORY", str(tmp_path / "debug"))
    assert find(stripped) == same(whole, stripped)
    assert find(stripped, "*dde*") == same(whole, stripped)
    with Image.open(stripped) as image, Image.open(whole) as other:
        assert Addresses(image).find("counter") == Addresses(other).find("counter") > 0
    # the file of another build is not taken for this one's
    run("objcopy", "--remove-section", ".note.gnu.build-id", place)
    assert find(stripped) == []


@pytest.mark.parametrize("folder", [".", ".debug"])
def test_by_link(built, folder):
    whole, stripped, debug = built
    run("objcopy", "--add-gnu-debuglink", debug, stripped)
    place = stripped.parent / folder / debug.name
    place.parent.mkdir(exist_ok=True)
    debug.rename(place)
    assert find(stripped) == same(whole, stripped)
    with place.open("ab") as file:
        file.write(b"\0")
    assert find(stripped) == []


def test_by_link_below_the_root_of_a_container(built, tmp_path, monkeypatch):
    whole, stripped, debug = built
    run("objcopy", "--add-gnu-debuglink", debug, stripped)
    monkeypatch.setattr(debugfiles, "_DIRECTORY", f"{tmp_path}/debug")
    inside = Path(f"{tmp_path}/debug{stripped.parent}/{debug.name}")
    inside.parent.mkdir(parents=True)
    debug.rename(inside)
    path = f"/proc/self/root{stripped}".replace("self", str(Path("/proc/self").readlink()))
    assert find(path) == same(whole, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_only_the_debug_file_of_somebody_who_may_say_where_probes_go(built):
    whole, stripped, debug = built
    run("objcopy", f"--add-gnu-debuglink={debug}", stripped)
    for owner, of_stripped, counts in ((12345, 0, False), (12345, 12345, True), (0, 12345, True), (0, 0, True)):
        os.chown(debug, owner, owner)
        os.chown(stripped, of_stripped, of_stripped)
        assert find(stripped) == (same(whole, stripped) if counts else [])


def test_a_link_cannot_lead_elsewhere(built):
    _, stripped, debug = built
    run("objcopy", "--add-gnu-debuglink", debug, stripped)
    data = stripped.read_bytes()
    assert data.count(b"program.debug\0") == 1
    (stripped.parent / "m.debug").write_bytes(debug.read_bytes())
    debug.unlink()
    stripped.write_bytes(data.replace(b"program.debug\0", b"./././m.debug\0"))
    assert find(stripped) == []


def test_in_the_file_itself(built, tmp_path):
    whole, stripped, _ = built
    data = tmp_path / "data"
    data.write_bytes(lzma.compress(whole.read_bytes()))
    run("objcopy", "--add-section", f".gnu_debugdata={data}", stripped)
    assert find(stripped) == same(whole, stripped)


@pytest.mark.parametrize(
    "content",
    [b"", b"no xz", lzma.compress(b"no ELF file"), lzma.compress(bytes(1 << 20))[:-4], lzma.compress(bytes(64 << 20))],
)
def test_damaged_or_endless_data_counts_as_none(built, tmp_path, content):
    _, stripped, _ = built
    data = tmp_path / "data"
    data.write_bytes(content)
    run("objcopy", "--add-section", f".gnu_debugdata={data}", stripped)
    assert find(stripped) == []


def test_no_descriptor_stays_open(built, tmp_path):
    test_in_the_file_itself(built, tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    find(built[1])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_debug_file_of_another_user_is_not_believed(built):
    """Its build-id or checksum is easily made to fit, and its addresses decide where probes are put."""
    whole, stripped, debug = built
    run("objcopy", f"--add-gnu-debuglink={debug}", stripped)
    os.chown(debug, 12345, 12345)
    assert find(stripped) == []
    os.chown(stripped, 12345, 12345)  # whose file it is may also say what is in it
    assert find(stripped) == same(whole, stripped)
    os.chown(debug, 0, 0)
    assert find(stripped) == same(whole, stripped)
