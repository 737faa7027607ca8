"""Processes that tests start: wait for a line of theirs, and end them, each by its own process group.

A process given to these functions was started with start_new_session=True and text pipes.
"""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest


def among_own_mounts(script):
    """A command that runs a shell script whose mounts nobody else sees; what follows it are the script's $0, $1, ….

    In a chroot the root is no mount whose propagation could be changed; there the mounts below it are private already.
    """
    private = "mount --make-rprivate / 2>/dev/null || :; "
    return ["unshare", "--mount", "--propagation", "unchanged", "sh", "-ec", private + script]


def as_user(uid):
    """The beginning of a command that runs it as another user. It may read everything, because this checkout and its
    Python may be closed to others."""
    kept = "-all,+dac_read_search"
    capabilities = [f"--inh-caps={kept}", f"--bounding-set={kept}", f"--ambient-caps={kept}"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *capabilities]


def let_work(process):
    """Let a program go that waits for a line; what it says behind "done" when it has done its work."""
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line.startswith("done "), line + process.stderr.read()
    return line[5:]


def let_end(process):
    """Let a program end that reads its standard input: with 0, and without a word on standard error."""
    process.stdin.close()
    assert (process.wait(20), process.stderr.read()) == (0, "")


def end(process, patience=10):
    """SIGTERM to a process that leads its own session, SIGKILL to what is left of its group, and its pipes closed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    kill_group(process)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def read_until(process, text, stream="stdout", timeout=20):
    """The first line that holds `text`; the test fails when the stream ends, or `timeout` s pass, without it."""
    seen = []
    overdue = threading.Timer(timeout, kill_group, [process])  # ends the stream, and so the reading
    overdue.start()
    try:
        for line in getattr(process, stream):
            if text in line:
                return line.rstrip("\n")
            seen.append(line)
    finally:
        overdue.cancel()
        overdue.join()
    pytest.fail(f"{process.args[0]} ended, or {timeout} s passed, before {text!r}; it wrote:\n{''.join(seen[-20:])}")


@contextlib.contextmanager
def serving(argv, text, **options):
    """A server that runs, since it has said `text` on standard error. The few lines of later stay in the pipe."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(part) for part in argv], **pipes, text=True, start_new_session=True, **options)
    try:
        read_until(process, text, stream="stderr", timeout=60)
        yield process
    finally:
        end(process, patience=60)


def eventually(question, *arguments, answer=True, timeout=20):
    """Wait until the question has this answer, for what nobody else tells."""
    until = time.monotonic() + timeout
    while (given := question(*arguments)) != answer:
        assert time.monotonic() < until, given
        time.sleep(0.005)


def unix_connection(path, timeout=60):
    """An HTTP connection to a server that listens at a socket in the file system."""

    class Connection(http.client.HTTPConnection):
        def connect(self):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(str(path))

    return Connection("localhost", timeout=timeout)


def until_disconnected(path, timeout=60):
    """Wait until the server that listens at a socket in the file system has closed all connections."""
    connected = re.compile(rf" 03 +\d+ {re.escape(str(path))}$", re.MULTILINE)  # include/uapi/linux/net.h: SS_CONNECTED
    sockets = Path("/proc/net/unix")
    eventually(lambda: connected.search(sockets.read_text(errors="surrogateescape")), answer=None, timeout=timeout)


def byte_in_memory(pid, path, file_offset):
    """What stands in the memory of a process where it maps this byte of a file: a breakpoint, if one is there."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape").split("\n")[:-1]:
        span, _, mapped, _, _, *name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in span.split("-"))
        if name == [str(path)] and 0 <= file_offset - int(mapped, 16) < end - start:
            with Path(f"/proc/{pid}/mem").open("rb") as memory:
                memory.seek(start + file_offset - int(mapped, 16))
                return memory.read(1)
    raise LookupError(f"{path} is not mapped at {file_offset:#x}")
