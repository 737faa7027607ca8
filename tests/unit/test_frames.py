"""Frames of processes that are here, and of those whose end came before anybody looked; and stacks in programs."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import Count, Emit
from usdtkit.bpf.program import Block as Do
from usdtkit.bpf.program import Hook, build
from usdtkit.errors import UsageError
from usdtkit.files import OpenFile
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.trace import symbols
from usdtkit.trace.memory import AddressSpace, Frame, Remains, aligned
from usdtkit.trace.symbols import Files

LIBC = ctypes.CDLL(None)


def address_of(function):
    return ctypes.cast(getattr(LIBC, function), ctypes.c_void_p).value


def program(kind, *actions):
    hook = Hook(0, "shop:order", kind, "x86_64", ())
    hook.blocks += [Do(None, action) for action in actions]
    return build([hook])


def test_a_program_takes_stacks_only_when_asked():
    assert "stack_records" not in program("entry", Count(0, {"pid": ex.pid})).text
    with_stacks = program("entry", Count(0, {"stack": ex.ustack}), Emit(0, {"calls": ex.ustack}))
    assert "stack_records" in with_stacks.text
    assert with_stacks.text.count("user_stack(ctx, AT_ENTRY, &counters->n[7])") == 1  # for both actions
    assert [field.kind for field in with_stacks.tables[0].keys.fields] == ["stack"]
    assert [field.kind for field in with_stacks.records[0].fields] == ["stack"]


def test_the_python_function_that_called_comes_from_the_same_walk():
    both = program("entry", Count(0, {"stack": ex.ustack, "caller": ex.pycaller}), Emit(0, {"caller": ex.pycaller}))
    assert both.text.count("user_stack(ctx, AT_ENTRY, &counters->n[7])") == 1
    assert [field.kind for field in both.tables[0].keys.fields] == ["stack", "pyframe"]
    assert [field.kind for field in both.records[0].fields] == ["pyframe"]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("entry", "AT_ENTRY"),
        ("return", "cookie & 2147483648u ? AT_EXIT : AT_RETURN"),
        ("usdt", "cookie & 2048 ? AT_ENTRY : 0"),
    ],
)
def test_the_walk_knows_where_it_begins(kind, place):
    assert f"user_stack(ctx, {place}, &counters->n[7])" in program(kind, Count(0, {"stack": ex.ustack})).text


@pytest.mark.parametrize(
    "expression",
    [ex.ustack > 1, ex.ustack == "main", ex.deref(ex.ustack), ex.ustack + 1, ex.pycaller == "f", ex.pycaller + 1],
)
def test_a_stack_is_no_number_and_no_string(expression):
    with pytest.raises(UsageError):
        program("entry", Emit(0, {"field": expression}))


def test_frames_of_a_process(spawn):
    code = (
        "import ctypes; print(ctypes.cast(ctypes.CDLL(None).getaddrinfo, ctypes.c_void_p).value, flush=True); input()"
    )
    process = spawn([sys.executable, "-c", code])
    address = int(process.stdout.readline())
    memory = AddressSpace.of(process.pid, Files())
    frame = memory.frame(address, address)
    assert (frame.name, frame.offset) == ("getaddrinfo", 0)
    assert "libc" in frame.module
    later = memory.frame(address + 5, address + 4)
    assert later == frame._replace(offset=5, address=address + 5)


def test_the_functions_of_the_vdso(tmp_path):
    lines = Path("/proc/self/maps").read_text().splitlines()
    start, end = next(line.split()[0].split("-") for line in lines if line.endswith("[vdso]"))
    with Path("/proc/self/mem").open("rb") as memory:
        memory.seek(int(start, 16))
        (tmp_path / "vdso").write_bytes(memory.read(int(end, 16) - int(start, 16)))
    command = ["readelf", "-W", "--dyn-syms", tmp_path / "vdso"]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    row = next(line.split() for line in said.splitlines() if "clock_gettime" in line)
    address = int(start, 16) + int(row[1], 16)
    frame = AddressSpace.of(os.getpid(), Files()).frame(address, address)
    assert frame.name.endswith("clock_gettime")
    assert frame.module == "[vdso]"


def test_addresses_that_are_nothing():
    memory = AddressSpace.of(os.getpid(), Files())
    inside = address_of("getaddrinfo")
    assert memory.frame(0x10, 0x10) == Frame("native", offset=0x10, address=0x10)
    assert memory.frame(0x10, 0x10).label == "0x10"
    assert memory.real((inside, inside + 1, 0x10, inside)) == (inside, inside + 1)
    assert memory.still_holds((inside, inside + 1))
    assert not memory.still_holds((0x10,))
    assert not memory.still_holds((inside, 0x10))


def test_no_such_process():
    assert AddressSpace.of(2**22 + 1, Files()) is None


def test_a_file_that_a_process_puts_in_the_place_of_another_has_no_part_in_its_names(monkeypatch):
    """Between a look at the list of mappings and the opening of one: other processes still have the first file."""
    [libc, *_] = [each for each in executable_mappings(maps_of("self")) if "/libc.so" in each.name]
    files = Files()
    with monkeypatch.context() as patched:
        patched.setattr(symbols, "open_mapping", lambda pid, mapping: OpenFile.open(sys.executable))
        assert files.open(os.getpid(), libc) is None
    assert files.open(os.getpid(), libc).find(address_of("getppid") - libc.start + libc.offset) == ("getppid", 0)


A, B, C = 0x7F0000001234, 0x7F0000005678, 0x7F0000009ABC
ONE, TWO, THREE = ("aa", 0x1234), ("aa", 0x5678), ("bb", 0xABC)


def test_the_kernel_s_notes_find_their_frames():
    assert aligned([A, B, C], [ONE, TWO, THREE], at_entry=False) == [ONE, TWO, THREE]
    assert aligned([A, B, C], [ONE, TWO, THREE], at_entry=True) == [ONE, TWO, THREE]
    assert aligned([A, B, C], [ONE, THREE], at_entry=True) == [ONE, None, THREE]
    assert aligned([A, B, C], [ONE, None, THREE], at_entry=False) == [ONE, None, THREE]
    assert aligned([A, B, C], [ONE], at_entry=False) == [ONE, None, None]
    assert aligned([A, B], [ONE, TWO, THREE], at_entry=False) == [ONE, TWO]
    assert aligned([A, B, C], [TWO, ONE, THREE], at_entry=True) == [None, None, None]
    assert aligned([A], [], at_entry=True) == [None]


def test_what_remains_of_a_process(compile_c):
    path = compile_c("chains.c", "-O2", "-fno-omit-frame-pointer", "-Wl,--build-id")
    said = subprocess.run(["nm", path], capture_output=True, text=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in said.splitlines() if len(line.split()) == 3}
    files = Files([str(path)])
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True).stdout
    build_id = notes.split("Build ID: ")[1].split()[0]
    base = 0x55550000000
    work, left, main = (base + symbols[name] + 4 for name in ("work", "left", "main"))
    noted = [(build_id, work - base), None, (build_id, main - base)]
    remains = Remains([work, left, main], noted, files)
    assert [remains.frame(at, at).name for at in (work, left, main)] == ["work", "left", "main"]
    unknown = Remains([work], [("00" * 20, work - base)], files).frame(work, work)
    assert unknown.label == f"[build-id {'00' * 20}]+{work - base:#x}"
    assert Remains([work], [None], files).frame(work, work).label == f"{work:#x}"
