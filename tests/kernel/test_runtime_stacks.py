"""Frames of PHP and Ruby in stacks: each stack of a hit equals what the program itself says of its stack there."""

import os
import struct
from pathlib import Path

import pytest
from interpreted import CALLS, COMMANDS, said, ways_of

from usdtkit import trace
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.signatures import cruby, zend
from usdtkit.trace import ustack
from usdtkit.unwind.phps import Phps
from usdtkit.unwind.rubies import Rubies

HITS = 997
INTERPRETERS = {"php": "execute_ex", "ruby": "rb_vm_exec"}
DEEPEST, UNREADABLE = "the limit of 127 frames", "unreadable memory"
DAMAGED = """
function inner() { usleep(0); echo "hit\\n"; return fgets(STDIN); }
function outer() { return inner(); }
while (outer()) { }
"""


def libc_of(pid):
    return next(each.name for each in executable_mappings(maps_of(pid)) if "libc.so" in each.name)


def ask(process, line="\n"):
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


def frames_of(stack, language):
    return [(frame.name, frame.file, frame.line) for frame in stack if frame.kind == language]


@pytest.fixture(params=["php", "ruby"])
def language(request):
    return request.param


def test_every_stack_is_what_the_program_says(spawn, language):
    process = spawn(COMMANDS[language])
    ask(process)
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), CALLS[language]).emit("ustack")
        session.start()
        expected = [said(ask(process, line)) for line in ways_of(language, HITS)]
        process.stdin.close()
        assert process.wait(20) == 0  # nothing is read before it has ended
        stacks = [event.ustack for event in session.drain()]
        summary = session.summary()
    assert (summary.hits, summary.received, summary.lost, summary.no_stack) == (HITS, HITS, 0, 0)
    assert [frames_of(stack, language) for stack in stacks] == expected
    for stack, ways in zip(stacks, ways_of(language, HITS), strict=True):
        assert stack.python_end == ""
        assert frames_of(stack.python, language) == frames_of(stack, language)
        assert stack.frames[0].name == CALLS[language]
        # Functions are between native frames, unless the native walk has ended. A fiber has a native stack of its own.
        ends = ("", DEEPEST, "code without tables") if "fiber" in ways else ("", DEEPEST)
        assert stack.native_end in ends
        assert stack.native_end or stack.frames[-1].kind == "native"
        assert INTERPRETERS[language] not in [frame.name for frame in stack]


def test_php_that_is_called_by_its_functions_in_c(spawn):
    """Each call of the engine's function is replaced by those functions that it runs."""
    script = """
        function f($n) { usleep(0); return $n; }
        function g() { return array_map('f', [1]); }
        echo "ready\n"; fgets(STDIN); g();
    """
    process = spawn(["php", "-r", script])
    assert process.stdout.readline() == "ready\n"
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(libc_of(process.pid), "usleep").count(stack=ustack)
        session.start()
        process.stdin.close()
        assert process.wait(20) == 0
        (((stack,), count),) = counts.read().items()
    assert count == 1
    names = [(frame.kind, frame.name) for frame in stack if frame.name]
    at = names.index(("php", "f"))
    assert names[at : at + 5] == [
        ("php", "f"),
        ("native", "zend_call_function"),
        ("php", "g"),
        ("php", "{main}"),
        ("native", "zend_execute"),
    ]
    assert [frame.name for frame in stack.native].count("execute_ex") == 2


class Damaged:
    """A process of PHP whose structures are written to while it waits."""

    def __init__(self, process):
        self.process = process
        assert process.stdout.readline() == "hit\n"
        php = Phps().of(process.pid)
        self.memory = os.open(f"/proc/{process.pid}/mem", os.O_RDWR)
        self.current = php.globals + zend.CURRENT

    def at(self, address):
        return struct.unpack("<Q", os.pread(self.memory, 8, address))[0]


def test_a_process_that_damages_its_own_structures(spawn):
    """The walk ends, says why, and does no harm. What is written is what only the frame of the whole file has: nothing
    reads that before the program ends."""
    process = spawn(["php", "-r", DAMAGED])
    damaged = Damaged(process)
    frames = [damaged.at(damaged.current)]
    while previous := damaged.at(frames[-1] + zend.PREVIOUS):
        frames.append(previous)
    main = frames[-1]
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), "usleep").emit("ustack")
        session.start()
        for value in (0, main, 8, (1 << 64) - 8):
            os.pwrite(damaged.memory, struct.pack("<Q", value), main + zend.PREVIOUS)
            assert ask(process) == "hit\n"
        os.pwrite(damaged.memory, struct.pack("<Q", 0), main + zend.PREVIOUS)
        os.close(damaged.memory)
        process.stdin.close()
        assert process.wait(20) == 0
        found = [(event.ustack.python_end, [frame.name for frame in event.ustack.python]) for event in session.drain()]
    whole = ["inner", "outer", "{main}"]
    assert found == [
        ("", whole),
        (DEEPEST, [*whole, *["{main}"] * 124]),
        (UNREADABLE, whole),
        (UNREADABLE, whole),
    ]


DAMAGED_RUBY = """
def inner; Process.ppid; puts "hit"; $stdout.flush; $stdin.gets; end
def outer; inner; end
while outer; end
"""


def test_a_process_that_damages_frames_of_ruby(spawn):
    """What is written is what only the outermost frame has."""
    process = spawn(["ruby", "-e", DAMAGED_RUBY])
    assert process.stdout.readline() == "hit\n"
    ruby = Rubies().of(process.pid)
    layout = ruby.build.layout
    with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:

        def at(address):
            return struct.unpack("<Q", os.pread(memory.fileno(), 8, address))[0]

        threads = at(at(ruby.machine) + layout.ractors) - layout.ractor_next + layout.threads
        context = at(at(threads) + layout.context)
        end = at(context + cruby.STACK) + 8 * at(context + cruby.STACK_SIZE)
        main = end - 2 * layout.frame_size  # the last one is below all frames
        with trace.Session(pid=process.pid) as session:
            session.uprobe(libc_of(process.pid), "getppid").emit("ustack")
            session.start()
            assert ask(process) == "hit\n"
            for member in (cruby.ISEQ, cruby.ENVIRONMENT):
                for value in (8, 0xDEAD0000, (1 << 64) - 8):
                    before = at(main + member)
                    os.pwrite(memory.fileno(), struct.pack("<Q", value), main + member)
                    assert ask(process) == "hit\n"
                    os.pwrite(memory.fileno(), struct.pack("<Q", before), main + member)
            process.stdin.close()
            assert process.wait(20) == 0
            stacks = [event.ustack for event in session.drain()]
    found = [(stack.python_end, [frame.name for frame in stack.python]) for stack in stacks]
    assert found == [("", ["inner", "outer", "<main>"]), *[(UNREADABLE, ["inner", "outer"])] * 6]


LONG = {
    "php": """
        namespace %(space)s;
        class C { static function %(name)s() { \\usleep(0); } }
        echo "ready\\n"; fgets(STDIN); C::%(name)s();
    """,
    "ruby": """
        def %(name)s; Process.ppid; end
        puts "ready"; $stdout.flush; $stdin.read; %(name)s
    """,
}


def test_names_that_are_too_long(spawn, language):
    """Their ends are replaced by a mark, also within a character."""
    script = LONG[language] % {"name": "ü" * 200, "space": "S" * 600}
    process = spawn([language, *(["-r"] if language == "php" else ["--encoding=UTF-8", "-e"]), script])
    assert process.stdout.readline() == "ready\n"
    with trace.Session(pid=process.pid) as session:
        session.uprobe(libc_of(process.pid), CALLS[language]).emit("ustack")
        session.start()
        process.stdin.close()
        assert process.wait(20) == 0
        (name, *_), *_ = frames_of(next(event.ustack for event in session.drain()), language)
    assert name == {"ruby": "", "php": "S" * 510 + "…::"}[language] + "ü" * 127 + "…"
