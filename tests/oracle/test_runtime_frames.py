"""Ruby's and PHP's frames as they are read from outside: each program says itself which frames its thread has."""

import random
from pathlib import Path

from usdtkit.unwind import phps, rubies

PROGRAMS = Path(__file__).parents[1] / "programs"
STACKS = 97
RUBY_WAYS = """plain block blocks lambda_of defined evaluated of_object of_class rescued ensured fiber thread missing
    tapped looped caught sorted größe_mit_einem_namen_der_länger_als_ein_eingebetteter_string_ist in_class long"""
PHP_WAYS = """plain fixed closure arrow mapped sorted called generated evaluated included magic text rescued fiber
    reflected größe"""


def stacks_of(process, ways):
    """Makes the program call itself in random ways, and yields what it says of its frames while it waits."""
    chosen = random.Random(997)
    for number in range(STACKS):
        calls = ways if number == 0 else [chosen.choice(ways) for _ in range(chosen.randrange(20))]
        process.stdin.write(" ".join(calls) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        assert said, process.stderr and process.stderr.read()
        frames = [frame.split("\t") for frame in said.rstrip("\n").split("\v")]
        yield [(name, file, int(line)) for name, file, line in frames]


def shown(thread):
    assert thread.problem == ""
    return [frame[:3] for frame in thread.frames]


def test_frames_of_ruby(spawn):
    process = spawn(["ruby", "--encoding=UTF-8", PROGRAMS / "frames.rb"])
    known = rubies.Rubies()
    for said in stacks_of(process, RUBY_WAYS.split()):
        ruby = known.of(process.pid)
        frames = [shown(thread) for thread in rubies.threads_of(ruby)]
        assert said in frames
    assert ruby.build.version == (3, 1)


def test_threads_of_ruby_are_known_by_what_pthread_self_returns(spawn, wait_for_line):
    script = "2.times { Thread.new { sleep } }; $stdout.puts 'ready'; $stdout.flush; $stdin.read"
    process = spawn(["ruby", "-e", script])
    wait_for_line(process, "ready")
    ruby = rubies.Rubies().of(process.pid)
    ids = {thread.id for thread in rubies.threads_of(ruby)}
    assert len(ids) == 3
    with Path(f"/proc/{process.pid}/mem").open("rb", buffering=0) as memory:
        for id in ids:  # on x86-64, what is there points to itself
            memory.seek(id)
            assert int.from_bytes(memory.read(8), "little") == id


def test_frames_of_php(spawn):
    process = spawn(["php", PROGRAMS / "frames.php"])
    known = phps.Phps()
    for said in stacks_of(process, PHP_WAYS.split()):
        php = known.of(process.pid)
        assert shown(phps.thread_of(php)) == said
    assert php.build.version == (8, 2)
