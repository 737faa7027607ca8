"""The command `usdtkit` as a user runs it: in a process of its own, to its end or until it is told to stop."""

import json
import signal
import subprocess
import sys
from functools import cache

from processes import among_own_mounts, as_user, eventually, read_until

from usdtkit.cli.schema import of_name, shared
from usdtkit.reports import report_of

USDTKIT = [sys.executable, "-m", "usdtkit"]
# A user without any privilege, except to read the tree under test wherever it is.
NOBODY = as_user(65534)
# bcc hidden from one process and its children.
# With BY_BCC, nothing is translated, so that every program that is not in the cache needs bcc.
BY_BCC = {"USDTKIT_COMPILER": "bcc"}
WITHOUT_BCC = [*among_own_mounts('mount -t tmpfs tmpfs /usr/lib/python3/dist-packages/bcc; exec "$@"'), "sh"]


def usdtkit(*arguments, prefix=(), **options):
    """Run the command to its end: a CompletedProcess with text."""
    command = [*prefix, *USDTKIT, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "timeout": 60}
    return subprocess.run(command, text=True, **pipes | options)


def start_tracing(spawn, *arguments, prefix=(), **popen):
    """Start the command; a process that has attached."""
    process = spawn([*prefix, *USDTKIT, *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, **popen)
    read_until(process, "Tracing", stream="stderr", timeout=60)
    return process


def until_hooked(pid, timeout=60):
    """Wait until a process that runs ready-made probes has set the hooks for those that are traced."""

    def not_hooked():
        told = [probe for probe in report_of(pid).probes if probe.armed]
        return [probe for probe in told if probe.hooked is False] if told else "no probe is traced"

    eventually(not_hooked, answer=[], timeout=timeout)


def until_fired(pid, spec, count, timeout=60):
    """Wait until a process has fired a probe so often since it started."""
    eventually(lambda: min(fired_by(pid, spec), count), answer=count, timeout=timeout)


def fired_by(pid, spec):
    """How often a process that uses usdtkit says that it has fired a probe."""
    return sum(probe.fired for probe in report_of(pid).probes if probe.spec == spec)


def stop_tracing(process, signal_number=signal.SIGINT):
    """End it as Ctrl-C does; (output, messages), and it must leave with 0."""
    process.send_signal(signal_number)
    return end_of_tracing(process)


def end_of_tracing(process, code=0):
    """(output, messages) of a tracer that ends by itself."""
    output, messages = process.stdout.read(), process.stderr.read()
    assert process.wait(30) == code, messages
    return output, messages


def json_lines(output):
    """(header, events, summary) of the output of --json, each as `usdtkit schema` describes it."""
    header, *events, summary = map(json.loads, output.splitlines())
    for kind, lines in (("header", [header]), (header["schema"], events), ("summary", [summary])):
        assert_described(kind, lines)
    return header, events, summary["summary"]


def names(frames):
    """The names of the frames of a stack as --json has them."""
    return [frame["name"] for frame in frames]


def from_main(calls):
    """The names of the calls of a whole stack, outermost first, from main on: before it, libc has calls of its own."""
    assert calls[0] == "_start", calls
    return calls[calls.index("main") :]


def assert_described(kind, lines):
    """The objects are of this kind, and have no field that is not described."""
    schema, validator = _schema(kind)
    for line in lines:
        validator.validate(line)
        assert line.keys() <= schema["properties"].keys()


@cache
def _schema(kind):
    from jsonschema import Draft202012Validator  # lazy: the SDK is also tested with interpreters that lack it

    name = kind.removeprefix("usdtkit.").partition("/")[0]
    schema = shared()["$defs"][kind] if kind == name else of_name(name)
    assert schema["title"] == kind
    return schema, Draft202012Validator(schema)


def go(process):
    """Let a program of tests/programs do its work."""
    process.stdin.write("go\n")
    process.stdin.flush()


def assert_explained(done, code, *words):
    """One line that says what is wrong, with these words, perhaps a hint, this exit code, and nothing else."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert lines[0].startswith("usdtkit: "), done.stderr
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("  hint: ")), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
