"""A program does what it does untraced, whichever tool traces all of its functions at once from the command line."""

import contextlib
import signal
import subprocess
from dataclasses import replace

import pytest
from commandline import USDTKIT
from processes import end, read_until
from unharmed import FEW, MOMENTS

TOOLS = {
    "funccount": ["funccount", "{image}:*"],
    "funclatency": ["funclatency", "-F", "{image}:*"],
    "funcslower": ["funcslower", "-u", "0", "{image}:*"],
    "trace": ["trace", 'r:{image}:* "%d", retval'],
    "stackcount": ["stackcount", "{image}:*"],
    "libcalls": ["libcalls", "*"],
}
NAMES = ("calls.c", "execs.c", "jumps.c", "contexts.c", "by_hand.c", "threads.c", "throws.cc", "panics.rs")


@contextlib.contextmanager
def running(words, pids):
    """The command, attached to these processes; it must end well when it is told to, or when they have ended."""
    command = [*USDTKIT, *words, "-p", ",".join(map(str, pids))]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    try:
        read_until(process, "Tracing", stream="stderr", timeout=60)
        yield process
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 0, messages
    finally:
        end(process)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", NAMES)
def test_by_the_command_line(unharmed, name, tool, moment):
    program = unharmed(name)
    if tool == "libcalls":  # on thousands of functions
        program = replace(program, cases=FEW[name])
    words = [word.format(image=program.image) for word in TOOLS[tool]]
    outcomes, _ = program.traced(moment, lambda pids: running(words, pids))
    assert not program.differences(outcomes)
