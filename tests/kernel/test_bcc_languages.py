"""Command lines of bcc's documentation of its tools for languages run here, with nothing changed but the pid.

Those of one language trace one process of it at the same time; when all have attached it does its work, and what each
printed must hold what the program did. What none of bcc's own programs takes, or only its kernel half could do, is
refused with the reason.
"""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commandline import USDTKIT, assert_explained, go, usdtkit
from processes import end, read_until

pytestmark = pytest.mark.machine

PROGRAMS = Path(__file__).parents[1] / "programs"
WORK = PROGRAMS / "languages"
PROBES = ("-XX:+DTraceMethodProbes", "-XX:+DTraceAllocProbes")
PIPES = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
RUNTIMES = {
    "java": ["java", "-XX:+UseSerialGC", "-Xshare:auto", *PROBES, WORK / "Work.java"],
    "node": ["node", "--expose-gc", PROGRAMS / "collect.js"],
    "php": ["php", WORK / "work.php"],
    "python": [sys.executable, "-m", "usdtkit", "run", WORK / "work.py"],
    "ruby": ["ruby", WORK / "work.rb"],
}
LIVE = [
    ("java", "ucalls -L $PID", r"Work\.leaf +997 +[\d.]+\n"),
    ("java", "ucalls -l java $PID", r"Work\.leaf +997\n"),
    ("java", "uflow -C java/lang/Thread $PID", r"-> java/lang/Thread\.run\n"),
    ("java", "uflow -l java $PID -M leaf", r"<- Work\.leaf\n"),
    ("java", "ugc -F Tenured $PID", r"(pool MarkSweepCompact Tenured Gen used=.*\n.*){13}"),
    ("java", "ugc -M 1 $PID", r"collection full=true\n"),
    ("java", "ugc -M 1 -l java $PID", r"collection full=true\n"),
    ("java", "javagc -v -m $PID", r"TIME\(ms\)"),
    ("java", "uobjnew -l java $PID", r"Work\$Order +97 "),
    ("java", "uthreads -l java $PID", r"thread start +worker-30\n"),
    ("java", "ustat -l java", r"java .*\n"),
    ("java", "javastat -S thread -r 8 5 10", r" java .*\n"),
    ("node", "ugc $PID", r"(.*collection mark-compact reason=testing\n){13}"),
    ("node", "nodegc -m -M 0.001 -F mark $PID", r"(?s)TIME\(ms\).*collection mark-compact"),
    ("node", "uthreads $PID", r"pthread .*([Ww]orker|libnode)"),  # Debian's has no symbols
    ("node", "nodestat 5", r"  [1-9]\d*        0        0        0        0\n"),
    ("php", "ucalls -l php $PID -L", r"Order\.leaf +997 +[\d.]+\n"),
    ("php", "phpflow -M leaf -v $PID", r"-> Order\.leaf\n"),
    ("python", "ucalls -mT 5 $PID", r"leaf +997\n"),
    ("python", "ucalls -l python -mL $PID", r"(?s)TIME \(ms\).*leaf +997 "),
    ("python", "ucalls -l python $PID 1", r"(?s)leaf +\d+\n"),
    ("python", "pythongc $PID", r"collection generation=2"),
    ("ruby", "ucalls -T 10 -l ruby $PID", r"Order\.leaf +997\n"),
    ("ruby", "uflow -l ruby $PID", r"-> Order\.branch\n.* -> Order\.leaf\n"),
    ("ruby", "ugc -l ruby $PID -m", r" mark\n"),
    ("ruby", "uobjnew -l ruby $PID -C 10", r"Order +98 "),
    ("ruby", "uobjnew -l ruby $PID -S 10", r"String +\d+ +\d+\n"),
    ("ruby", "uobjnew -S 10 -l c $PID", r"block of \d+ bytes +\d+ +\d+\n"),
    ("ruby", "uthreads -l none $PID", r"TYPE +DESCRIPTION\n"),
    ("ruby", "ustat", r" ruby .*\n"),
    ("ruby", "ustat -C 5 12", r" ruby .*\n"),
    ("ruby", "ustat -Cr 8", r" ruby .*\n"),
]
REFUSED = [
    ("ucalls -l none -ST 10 1", 2, "system calls"),
    ("ucalls -l java 1 -S", 2, "system calls"),
    ("ucalls 1 -S", 2, "system calls"),
    ("ucalls -l php 1 -LS", 2, "system calls"),
    ("ucalls -S 1 10", 2, "system calls"),
    ("uflow ruby 1", 2, "-l ruby"),
    ("uflow -C java/lang/Thread java 1", 2, "-l java"),
    ("ugc node 1", 2, "-l node"),
    ("ugc -M 10 -F Tenured java 1", 2, "-l java"),
    ("uobjnew -S 10 c 4711", 2, "-l c"),
    ("ustat -d", 2, "--duration"),
]


@pytest.mark.parametrize("language", RUNTIMES)
def test_live(language, spawn, wait_for_line):
    process = spawn(RUNTIMES[language], env=os.environ | {"USE_ZEND_DTRACE": "1"})
    wait_for_line(process, "ready", timeout=60)
    lines = [(line, expected) for of, line, expected in LIVE if of == language]
    tools = [spawn([*USDTKIT, *line.replace("$PID", str(process.pid)).split()], **PIPES) for line, _ in lines]
    try:
        for tool in tools:
            read_until(tool, "Tracing", stream="stderr", timeout=120)
        with ThreadPoolExecutor(len(tools)) as readers:  # a pipe that nobody reads would hold up its tool
            outputs = [readers.submit(tool.stdout.read) for tool in tools]
            go(process)
            process.wait(60) if language == "node" else wait_for_line(process, "done", timeout=60)
            for tool in tools:
                tool.send_signal(signal.SIGINT)
            wrong = [
                f"{line}\n{output.result()[-2000:]}{tool.stderr.read()}"
                for (line, expected), tool, output in zip(lines, tools, outputs, strict=True)
                if not re.search(expected, output.result()) or tool.wait(60)
            ]
    finally:
        for tool in tools:
            end(tool)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("line", "code", "reason"), REFUSED)
def test_refused(line, code, reason):
    assert_explained(usdtkit(*line.split()), code, reason)


def test_they_are_many():
    tools = {line.split()[0].lstrip("u") for _, line, _ in LIVE}
    assert len(LIVE) + len(REFUSED) >= 40 and {"calls", "flow", "gc", "objnew", "stat", "threads"} <= tools
