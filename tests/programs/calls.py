"""A program whose threads call a function so often that each call is known: pytest fixture `calls`."""

import pytest


@pytest.fixture
def calls(compile_c, ready):
    """A process that calls work(thread, i), thread 0 to 9, i 0 to 996, each thread in its own; and its program."""
    path = str(compile_c("threads.c", "-O2", "-fno-omit-frame-pointer", "-pthread"))
    return ready([path, "10", "997"]), path


def run(session, process):
    """Start the session, let the process call, and return the events."""
    session.start()
    process.stdin.write("\n")
    process.stdin.flush()
    return list(session)
