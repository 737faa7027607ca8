"""Processes of all kinds: for each address of their code, the walker finds the row that the table of its file has."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import among_own_mounts, eventually
from walkermaps import WalkerMaps, find, mappings_of

from usdtkit.elf.image import Image
from usdtkit.errors import NotFoundError
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.unwind import mapped
from usdtkit.unwind.mapped import MOST_MAPPINGS, Processes
from usdtkit.unwind.store import Store
from usdtkit.unwind.tables import NONE, read_table

PAGE = 4096
SAMPLES = 97
PYTHON = "import ctypes, ssl, sqlite3, sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))


THREADED = """
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>
static void *stays(void *nothing)
{
    pause();
    return nothing;
}
int main(void)
{
    pthread_t other;
    pthread_create(&other, NULL, stays, NULL);
    puts("ready 0");
    fflush(stdout);
    getchar();
    pthread_exit(NULL);
}
"""


class Known:
    """What the kernel would know: its maps, and the entries of processes."""

    def __init__(self, **options):
        self.maps, self.entries = WalkerMaps(), {}
        self.store = Store(self.maps)
        self.processes = Processes(self.store, self.entries.__setitem__, self.remove, **options)

    def remove(self, pid):
        self.entries.pop(pid, None)

    def learn(self, pid):
        return self.processes.learn(pid)

    def find(self, pid, address):
        return find(self.maps, self.entries[pid], address)


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def run(spawn, wait_for_line):
    """run(argv) -> (process, address): it is ready, and has said an address of executable memory, or 0."""

    def start(argv):
        process = spawn(argv)
        said = wait_for_line(process, "ready").split()
        return process, int(said[1], 16) if said[1:] else 0

    return start


@pytest.fixture(scope="module")
def program(compile_c):
    return compile_c("mapping.c", "-O1", "-ldl")


def regions(pid):
    """The executable mappings of a process; [vsyscall] is the kernel's."""
    return [mapping for mapping in executable_mappings(maps_of(pid)) if mapping.name != "[vsyscall]"]


def tables_of(pid, vdso):
    """Each mapping with a file of code, the table of the file, and which virtual address the mapping begins with."""
    found = []
    for mapping in regions(pid):
        path = f"/proc/{pid}/map_files/{mapping.span}" if mapping.identity.inode else vdso
        if mapping.identity.inode or mapping.name == "[vdso]":
            with Image.open(path) as image:
                segments = [s for s in image.segments if s.flags & 1 and s.type == 1]
                (segment,) = [s for s in segments if s.offset // PAGE * PAGE <= mapping.offset < s.offset + s.file_size]
                found.append((mapping, read_table(image), segment.address + mapping.offset - segment.offset))
    return found


@pytest.fixture
def vdso(tmp_path):
    """The vdso of this process, in a file."""
    (mapping,) = [mapping for mapping in regions("self") if mapping.name == "[vdso]"]
    with Path("/proc/self/mem").open("rb") as memory:
        memory.seek(mapping.start)
        (tmp_path / "vdso").write_bytes(memory.read(mapping.end - mapping.start))
    return tmp_path / "vdso"


def check(known, pid, vdso, least):
    """Sampled addresses of each mapping, and its first and last; at least so many say something. The mappings."""
    chance, told = random.Random(997), 0
    found = tables_of(pid, vdso)
    for mapping, table, start in found:
        inside = chance.choices(range(mapping.end - mapping.start), k=SAMPLES)
        for at in (0, mapping.end - mapping.start - 1, *inside):
            expected = table.find(start + at)
            row = known.find(pid, mapping.start + at)
            # The last pages of a mapping can be behind the code.
            assert row == expected or (row is None and expected.frame == NONE)
            told += expected.frame != NONE
    assert told >= least
    return [mapping for mapping, _, _ in found]


def test_python_and_its_libraries(known, run, vdso):
    process, _ = run(["/usr/bin/python3", "-c", PYTHON])
    learned = known.learn(process.pid)
    mappings = check(known, process.pid, vdso, least=1000)
    assert learned == (len(regions(process.pid)), 0, (), ())
    names = {Path(mapping.name).name for mapping in mappings}
    assert {"[vdso]", "libc.so.6", "libcrypto.so.3", "libsqlite3.so.0.8.6"} <= names


def test_bash_and_addresses_between_its_mappings(known, run, vdso):
    process, _ = run(["/bin/bash", "-c", "echo ready; read line"])
    known.learn(process.pid)
    check(known, process.pid, vdso, least=200)
    for mapping in regions(process.pid):
        for address in (mapping.start - 1, mapping.end):
            if not any(other.start <= address < other.end for other in regions(process.pid)):
                with pytest.raises(LookupError):
                    known.find(process.pid, address)
    with pytest.raises(LookupError):
        known.find(process.pid, 0xFFFFFFFFFF600000)


@pytest.mark.parametrize(
    "flags",
    [
        ["-static", "-DSTATIC"],
        ["-static-pie", "-DSTATIC"],
        ["-no-pie"],
        ["-pie"],
        ["-no-pie", "-Wl,-z,noseparate-code"],
        ["-no-pie", "-DFAR", "-Wl,--section-start=.far=0x800000"],
        ["-pie", "-Wl,-Ttext-segment=0x10000000"],
    ],
    ids=" ".join,
)
def test_programs_that_are_linked_in_several_ways(known, run, vdso, compile_c, flags):
    process, function = run([compile_c("mapping.c", "-O1", *flags)])
    assert known.learn(process.pid).untabled == ()
    mappings = check(known, process.pid, vdso, least=50)
    assert len({mapping.start for mapping in mappings if mapping.name.startswith("/tmp")}) == 1 + ("-DFAR" in flags)
    assert known.find(process.pid, function).frame != NONE


@pytest.mark.parametrize(("kind", "parts"), [("split", 3), ("holes", 2)])
def test_mappings_that_begin_inside_of_a_segment(known, run, vdso, program, kind, parts):
    process, middle = run([program, kind])
    known.learn(process.pid)
    mappings = check(known, process.pid, vdso, least=200)
    assert len([mapping for mapping in mappings if mapping.name == str(program)]) == parts
    assert known.find(process.pid, middle - 1).frame != NONE
    assert known.find(process.pid, middle + PAGE).frame != NONE
    if kind == "split":
        assert known.find(process.pid, middle).frame != NONE
    else:
        with pytest.raises(LookupError):
            known.find(process.pid, middle)


def test_memory_of_a_compiler_at_run_time(known, run, vdso, program):
    process, address = run([program, "anonymous"])
    assert known.learn(process.pid) == (len(regions(process.pid)), 0, (), ((address, address + 64 * PAGE),))
    check(known, process.pid, vdso, least=100)
    assert known.find(process.pid, address) is known.find(process.pid, address + 64 * PAGE - 1) is None


def test_files_that_are_no_code(known, run, program, tmp_path):
    text = tmp_path / "text"
    text.write_text("a line\n" * 1000)
    process, address = run([program, "file", text])
    learned = known.learn(process.pid)
    assert learned.untabled == ((str(text), f"{text}: not an ELF file"),)
    assert known.find(process.pid, address) is None


def has(mappings, path):
    """Whether a file is mapped. In a chroot, its path begins at the root of the mounts if only the process sees it."""
    return any(mapping.name.endswith(str(path)) for mapping in mappings)


def test_in_a_container_whose_files_are_not_here(known, run, vdso, program, tmp_path):
    """A tmpfs that only the process sees."""
    script = 'mount -t tmpfs none "$0"; cp "$1" "$0/program"; exec "$0/program"'
    process, _ = run([*among_own_mounts(script), tmp_path, program])
    assert not (tmp_path / "program").exists()
    assert known.learn(process.pid).untabled == ()
    assert has(check(known, process.pid, vdso, least=200), tmp_path / "program")


def test_on_an_overlay(known, run, vdso, program, tmp_path):
    script = """
        cd "$0"; mkdir disk merged; mount -t tmpfs none disk; mkdir disk/lower disk/upper disk/work
        cp "$1" disk/lower/program
        mount -t overlay -o lowerdir=disk/lower,upperdir=disk/upper,workdir=disk/work none merged
        exec "$0/merged/program"
    """
    process, _ = run([*among_own_mounts(script), tmp_path, program])
    assert known.learn(process.pid).untabled == ()
    assert has(check(known, process.pid, vdso, least=200), tmp_path / "merged/program")


@pytest.mark.parametrize("then", ["deleted", "replaced"])
def test_a_program_that_is_not_there_any_more(known, run, vdso, program, tmp_path, then):
    path = tmp_path / "program"
    shutil.copy(program, path)
    process, function = run([path])
    path.unlink()
    if then == "replaced":
        shutil.copy("/bin/true", path)
    assert known.learn(process.pid).untabled == ()
    check(known, process.pid, vdso, least=200)
    assert known.find(process.pid, function).frame != NONE


def test_a_program_in_memory(known, run, vdso, program):
    code = (
        "import os, sys; f = os.memfd_create('x'); os.write(f, open(sys.argv[1], 'rb').read()); os.execve(f, ['x'], {})"
    )
    process, function = run([sys.executable, "-c", code, program])
    assert known.learn(process.pid).untabled == ()
    check(known, process.pid, vdso, least=200)
    assert known.find(process.pid, function).frame != NONE


def test_a_program_of_32_bits(known, run, compile_c):
    process, function = run([compile_c("mapping.c", "-static", "-DSTATIC", compiler="i686-linux-gnu-gcc")])
    learned = known.learn(process.pid)
    ((name, why),) = learned.untabled
    assert why == f"{name}: call frame information of i386 is not read"
    assert learned.mappings == len(regions(process.pid)) >= 2
    assert {pages for *_, pages in mappings_of(known.entries[process.pid])} == {0}
    assert known.find(process.pid, function) is None


@pytest.mark.parametrize("number", [MOST_MAPPINGS, 997])
def test_more_mappings_than_there_is_room_for(known, run, vdso, program, number):
    process, largest = run([program, "many", number])
    learned = known.learn(process.pid)
    assert learned[:3] == (MOST_MAPPINGS, len(regions(process.pid)) - MOST_MAPPINGS, ())
    assert len(learned.compiled) >= number
    assert learned.left_out > number - MOST_MAPPINGS
    check(known, process.pid, vdso, least=100)  # files come first
    assert known.find(process.pid, largest) is None  # and then the largest
    small = [mapping.start for mapping in regions(process.pid) if not mapping.name and mapping.start != largest]
    there = {start for start, *_ in mappings_of(known.entries[process.pid])}
    assert len(set(small) - there) == learned.left_out


def test_a_library_that_comes_later(known, run, vdso, program, wait_for_line):
    process, _ = run([program])
    before = known.learn(process.pid).mappings
    process.stdin.write("libsqlite3.so.0\n")
    process.stdin.flush()
    assert wait_for_line(process, "ready")
    assert known.learn(process.pid).mappings > before
    assert any("libsqlite3" in mapping.name for mapping in check(known, process.pid, vdso, least=300))


def test_files_are_read_once_for_all_processes(known, run):
    first, second = (run(["/bin/bash", "-c", "echo ready; read line"])[0] for _ in range(2))
    known.learn(first.pid)
    writes = known.maps.writes
    known.learn(second.pid)
    assert known.maps.writes == writes
    pages = [{pages for *_, pages in mappings_of(known.entries[process.pid])} for process in (first, second)]
    assert pages[0] == pages[1]
    assert known.entries[first.pid] != known.entries[second.pid]


def test_a_file_that_does_not_fit_is_said(run):
    known = Known()
    known.store._most_chunks = 1
    process, _ = run(["/usr/bin/python3", "-c", PYTHON])
    learned = known.learn(process.pid)
    names = {name for name, why in learned.untabled if "does not fit" in why}
    assert names == set(known.store.full)
    assert any("libcrypto" in name for name in names)
    assert learned.mappings == len(regions(process.pid))


def test_files_that_take_long_are_read_at_the_next_look(run, vdso, monkeypatch):
    """Each of them takes a second longer than there is."""
    known, clock = Known(), [0]
    process, _ = run(["/bin/bash", "-c", "echo ready; read line"])
    read = known.store._read

    def slow(file, name):
        clock[0] += mapped.LONGEST_LOOK_S + 1
        return read(file, name)

    monkeypatch.setattr(known.store, "_read", slow)
    monkeypatch.setattr(mapped.time, "monotonic", lambda: clock[0])
    files = len({mapping.name for mapping in regions(process.pid) if mapping.identity.inode})
    for left in range(files - 1, -1, -1):
        untabled = known.learn(process.pid).untabled
        assert len(untabled) == left
        assert all(why == f"{name}: there was no time to read it" for name, why in untabled)
    check(known, process.pid, vdso, least=200)


def test_what_is_said_of_python_is_passed_on(run):
    known = Known(python=lambda pid: (3, 0x123456789A))
    process, _ = run(["/bin/bash", "-c", "echo ready; read line"])
    known.learn(process.pid)
    _, layout, runtime, learned = mapped.HEAD.unpack_from(known.entries[process.pid])
    assert (layout, runtime, learned) == (3, 0x123456789A, process.pid)


def test_of_a_process_that_is_not_known_all_memory_may_be_code(known):
    known.entries[0] = mapped.ANY_CODE
    assert known.find(0, 0x10) is known.find(0, 0x7FFFFFFFFFFF) is None
    assert len(mappings_of(mapped.ANY_CODE)) == 1


def test_a_process_that_has_ended(known, run, program):
    process, _ = run([program])
    known.learn(process.pid)
    process.stdin.close()
    process.wait(20)
    with pytest.raises(NotFoundError, match=f"no process {process.pid}"):
        known.learn(process.pid)


def test_a_process_whose_first_thread_has_ended_stays_known(known, run, compile_c):
    process, _ = run([compile_c(THREADED, "-pthread")])
    known.learn(process.pid)
    entries = dict(known.entries)
    process.stdin.write("\n")
    process.stdin.flush()
    eventually(maps_of, process.pid, answer=b"")
    with pytest.raises(NotFoundError, match="or its first thread has"):
        known.learn(process.pid)
    assert known.entries == entries


def test_a_process_that_ends_while_it_is_looked_at_leaves_no_entry(run, program):
    process, _ = run([program])

    def ends(pid):
        process.stdin.close()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is a zombie then
        return 0, 0

    known = Known(python=ends)
    assert known.learn(process.pid).mappings > 0
    assert known.entries == {}


def test_without_the_privilege_to_open_what_is_mapped(vdso):
    """Then a file is opened by its path, and must be the one that is mapped."""
    code = f"""
import os, sys; sys.path[:0] = ["tests", "tests/unit"]
from test_unwind_mapped import *
known = Known()
with pytest.raises(PermissionError):
    os.open(f"/proc/self/map_files/{{regions('self')[0].span}}", os.O_RDONLY)
known.learn(os.getpid())  # which loads modules
assert known.learn(os.getpid()).untabled == ()
of_files = [mapping for mapping in regions("self") if mapping.identity.inode or mapping.name == "[vdso]"]
assert sum(pages > 0 for *_, pages in mappings_of(known.entries[os.getpid()])) == len(of_files) > 10
for mapping in of_files:
    with Image.open({str(vdso)!r} if mapping.name == "[vdso]" else mapping.name) as image:
        table = read_table(image)
        address = image.address(mapping.offset + 100)
    assert known.find(os.getpid(), mapping.start + 100) == table.find(address)
print("all found")
"""
    command = ["setpriv", "--bounding-set=-all", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.stdout, done.stderr[-2000:]) == ("all found\n", "")
