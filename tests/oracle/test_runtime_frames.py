"""Ruby's and PHP's frames as they are read from outside: each program says itself which frames its thread has."""

from pathlib import Path

from interpreted import COMMANDS, said, ways_of

from usdtkit.unwind import phps, rubies

STACKS = 97


def stacks_of(process, language):
    """Makes the program call itself, and yields what it says of its frames while it waits."""
    for line in ways_of(language, STACKS):
        process.stdin.write(line)
        process.stdin.flush()
        yield said(process.stdout.readline())


def shown(thread):
    assert thread.problem == ""
    return [frame[:3] for frame in thread.frames]


def test_frames_of_ruby(spawn):
    process = spawn(COMMANDS["ruby"])
    known = rubies.Rubies()
    for expected in stacks_of(process, "ruby"):
        ruby = known.of(process.pid)
        frames = [shown(thread) for thread in rubies.threads_of(ruby)]
        assert expected in frames
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
    process = spawn(COMMANDS["php"])
    known = phps.Phps()
    for expected in stacks_of(process, "php"):
        php = known.of(process.pid)
        assert shown(phps.thread_of(php)) == expected
    assert php.build.version == (8, 2)
