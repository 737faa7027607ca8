"""What is read of Ruby and PHP: damaged files, and processes that have overwritten their memory."""

import os
import random
import re
import signal
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import eventually

from usdtkit.elf.image import Image
from usdtkit.elf.symbols import variables
from usdtkit.errors import UnsupportedError
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.signatures import cruby, zend
from usdtkit.unwind import phps, rubies, runtimes
from usdtkit.unwind.iseqs import Iseq, size_of_positions
from usdtkit.unwind.phps import Phps
from usdtkit.unwind.rubies import Rubies
from usdtkit.unwind.runtimes import LONGEST_LOOK_S, Runtimes

RUBY = """
def inner; $stdout.puts "ready"; $stdout.flush; $stdin.read; end
def outer; [0].each { inner }; end
started = Queue.new
Thread.new { started << 1; sleep }
started.pop
outer
"""
PHP = """
function inner() { echo "ready\\n"; fgets(STDIN); }
function outer() { array_map('inner', []); inner(); }
outer();
"""


class Stopped:
    """A process that is stopped in `inner`, and never goes on."""

    def __init__(self, process):
        assert process.stdout.readline() == "ready\n"
        self.pid = process.pid
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)
        self.memory = os.open(f"/proc/{process.pid}/mem", os.O_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.memory)
        os.kill(self.pid, signal.SIGKILL)

    def pointer(self, address):
        return struct.unpack("<Q", os.pread(self.memory, 8, address))[0]

    def write(self, address, value):
        os.pwrite(self.memory, struct.pack("<Q", value), address)


@pytest.fixture
def stopped_ruby(spawn):
    with Stopped(spawn(["ruby", "-e", RUBY])) as stopped:
        stopped.ruby = Rubies().of(stopped.pid)
        layout = stopped.ruby.build.layout
        ractors = stopped.pointer(stopped.ruby.machine) + layout.ractors
        stopped.threads = stopped.pointer(ractors) - layout.ractor_next + layout.threads
        stopped.thread = stopped.pointer(stopped.threads)  # the main thread
        stopped.context = stopped.pointer(stopped.thread + layout.context)
        yield stopped


@pytest.fixture
def stopped_php(spawn):
    with Stopped(spawn(["php", "-r", PHP])) as stopped:
        stopped.php = Phps().of(stopped.pid)
        stopped.inner = stopped.pointer(stopped.php.globals + zend.CURRENT)
        kind = stopped.pointer(stopped.pointer(stopped.inner + zend.FUNCTION) + zend.TYPE) & 0xFF
        if kind == zend.INTERNAL:  # it has come to fgets
            stopped.inner = stopped.pointer(stopped.inner + zend.PREVIOUS)
        yield stopped


def names(thread):
    return [frame.name for frame in thread.frames]


def test_frames_of_ruby(stopped_ruby):
    main, other = rubies.threads_of(stopped_ruby.ruby)
    assert names(main) == ["inner", "block in outer", "outer", "<main>"]
    assert [frame.is_entry for frame in main.frames] == [False, True, False, True]
    assert [frame.line for frame in main.frames] == [2, 3, 3, 7]
    assert names(other) == ["block in <main>"]
    assert main.id != other.id


def test_frames_of_php(stopped_php):
    thread = phps.thread_of(stopped_php.php)
    assert names(thread) == ["inner", "outer", "{main}"]
    assert [frame.is_entry for frame in thread.frames] == [False, False, True]
    assert [frame.line for frame in thread.frames] == [2, 3, 4]
    assert {frame.file for frame in thread.frames} == {"Command line code"}


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        (zend.PREVIOUS, None, "there are more than 1024 frames"),
        (zend.PREVIOUS, 8, "56 bytes at 0x8 cannot be read"),
        (zend.FUNCTION, 0xDEAD0000, "1 bytes at 0xdead0000 cannot be read"),
        (zend.FUNCTION, (1 << 64) - 8, "cannot be read"),
        (zend.INSTRUCTION, 0xDEAD0000, "cannot be read"),
    ],
)
def test_damaged_frames_of_php(stopped_php, member, value, problem):
    stopped_php.write(stopped_php.inner + member, stopped_php.inner if value is None else value)
    assert problem in phps.thread_of(stopped_php.php).problem
    with pytest.raises(UnsupportedError, match=r"is not laid out as PHP 8\.2, or damaged: "):
        Phps().of(stopped_php.pid)


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        (cruby.FRAME, 8, "there is no frame at 0x8"),
        (cruby.STACK, 1 << 63, "there is no frame at"),
        (cruby.STACK_SIZE, 1 << 40, "there is no frame at|there are more than 1024 frames"),
    ],
)
def test_damaged_frames_of_ruby(stopped_ruby, member, value, problem):
    """Those of the other thread are whole."""
    stopped_ruby.write(stopped_ruby.context + member, value)
    main, other = rubies.threads_of(stopped_ruby.ruby)
    assert re.search(problem, main.problem)
    assert (other.problem, names(other)) == ("", ["block in <main>"])


def test_a_damaged_list_of_threads(stopped_ruby):
    second = stopped_ruby.pointer(stopped_ruby.thread)
    stopped_ruby.write(second, second)
    with pytest.raises(UnsupportedError, match=r"is not laid out as Ruby 3\.1, or damaged: the list at .* is no ring"):
        Rubies().of(stopped_ruby.pid)


def test_anything_in_the_memory_of_a_process(stopped_ruby, stopped_php):
    """Of each structure that is read, words are overwritten: frames are read or not, and nothing else happens."""
    chosen = random.Random(997)
    ruby, php = stopped_ruby, stopped_php
    frame = ruby.pointer(ruby.context + cruby.FRAME)
    while not (iseq := ruby.pointer(frame + cruby.ISEQ)):  # those of functions in C have none
        frame += ruby.ruby.build.layout.frame_size
    body = ruby.pointer(iseq + cruby.BODY)
    function = php.pointer(php.inner + zend.FUNCTION)
    places = [
        *((ruby, start) for start in (ruby.thread, ruby.threads, ruby.context, frame, iseq, body)),
        *((ruby, ruby.pointer(body + at)) for at in (cruby.NAME, cruby.PATH, ruby.ruby.build.layout.positions)),
        *((php, start) for start in (php.inner, function, php.pointer(function + zend.NAME))),
    ]
    outcomes = set()
    for _ in range(997):
        process, start = chosen.choice(places)
        at = start + 8 * chosen.randrange(20)
        before = process.pointer(at)
        address = chosen.choice([start, body, function, before + 8, chosen.getrandbits(47)])
        process.write(at, chosen.choice([0, 1, (1 << 64) - 1, chosen.getrandbits(64), address]))
        try:
            threads = rubies.threads_of(ruby.ruby) if process is ruby else [phps.thread_of(php.php)]
            outcomes |= {bool(thread.problem) for thread in threads}
        except UnsupportedError:
            outcomes.add(None)
        process.write(at, before)
    assert outcomes == {True, False, None}
    assert [names(thread)[0] for thread in rubies.threads_of(ruby.ruby)] == ["inner", "block in <main>"]
    assert names(phps.thread_of(php.php)) == ["inner", "outer", "{main}"]


def test_files_that_take_long_are_read_at_the_next_look(spawn, monkeypatch):
    """Each look reads one more of the program, its library and the dynamic linker."""

    class Built:
        code = ()

    def files():
        return [mapping for mapping in executable_mappings(maps_of(process.pid)) if mapping.identity.inode]

    process = spawn(["sleep", "60"])
    eventually(lambda: len(files()), answer=3)
    read, clock = [], [0.0]

    def slow(image):
        clock[0] += LONGEST_LOOK_S + 1
        read.append(image.path)
        return Built() if len(read) == 3 else None

    monkeypatch.setattr(runtimes.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(runtimes, "bias_of", lambda code, mapping: 0)
    found = Runtimes(slow, lambda pid, build, bias: pid, lambda pid: True, "", anywhere=True)
    assert [found.of(process.pid) for _ in range(4)] == [None, None, process.pid, process.pid]
    assert len(set(read)) == 3 == len(read)


def test_processes_without_either(spawn):
    process = spawn(["sleep", "60"])
    assert Rubies().of(process.pid) is None
    assert Phps().of(process.pid) is None


def build(compile_c, of, source):
    with Image.open(compile_c(source, "-shared", "-fPIC", "-nostdlib")) as image:
        return of(image)


@pytest.mark.parametrize(
    ("version", "more", "problem"),
    [
        ("1.9.3", "void *ruby_current_vm_ptr;", "it is not known how Ruby 1.9 lays out its frames"),
        ("3.9.0", "void *ruby_current_vm_ptr;", "it is not known how Ruby 3.9 lays out its frames"),
        ("3.3.8", "", "Ruby 3.3 was stripped of the symbol ruby_current_vm_ptr"),
        ("3.3.8", "int rb_during_gc(void) { return 1; }", "Ruby 3.3 was stripped of the symbol ruby_current_vm_ptr"),
    ],
)
def test_rubies_whose_frames_cannot_be_found(compile_c, version, more, problem):
    with pytest.raises(UnsupportedError, match=problem):
        build(compile_c, rubies.build_of, f'const char ruby_version[] = "{version}"; {more}')


@pytest.mark.parametrize(
    "function",
    ["lea hidden(%rip), %rax; mov (%rax), %rax", "endbr64; mov hidden(%rip), %rax; test %rax, %rax"],
)
def test_the_machine_of_a_ruby_that_does_not_export_it(compile_c, function):
    source = f"""
        const char ruby_version[] = "3.3.8";
        void *exported[4];
        asm(".data\\nhidden: .quad 0\\n.text\\n.globl rb_during_gc\\nrb_during_gc: {function}; ret");
        asm(".globl hidden_too\\n.set hidden_too, hidden");
    """
    with Image.open(compile_c(source, "-shared", "-fPIC", "-nostdlib")) as image:
        assert rubies.build_of(image).machine == variables(image, "hidden_too")["hidden_too"]


def test_a_file_with_another_ruby_version(compile_c):
    assert build(compile_c, rubies.build_of, 'const char ruby_version[] = "none";') is None
    assert build(compile_c, rubies.build_of, "int a;") is None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('const char *t = "\\0X-Powered-By: PHP/8.9.1"; int executor_globals[450];', "PHP 8.9 is newer than 8.4"),
        ('const char *t = "\\0X-Powered-By: PHP/7.2.1"; int executor_globals[450];', "PHP 7.2 is older than 7.3"),
        ('const char *t = "\\0X-Powered-By: PHP/8.2.1"; int executor_globals_offset;', "PHP 8.2 was built for threads"),
        ("int executor_globals[450];", "PHP of an unknown version"),
    ],
)
def test_phps_whose_frames_cannot_be_found(compile_c, source, problem):
    with pytest.raises(UnsupportedError, match=problem):
        build(compile_c, phps.build_of, source)


@given(st.binary(max_size=300), st.binary(max_size=60), st.sampled_from([8, 12]), st.integers(-10, 100_000))
def test_any_bytes_as_lines_of_ruby(positions, lines, size, at):
    line = Iseq("f", "f.rb", positions, lines, size).line(at)
    assert line is None or 0 < line < 1 << 32


def test_the_size_of_the_table_of_positions():
    assert [size_of_positions(size) for size in (0, 54, 55, 566, 567)] == [48, 48, 128, 128, 208]
