"""Command lines of bcc's documentation for user space run here, with nothing changed but the program's name.

Each is started by a shell; when it has attached, a program makes one round of calls; then Ctrl-C ends it, and what it
printed must hold what the round did. What this machine's libraries lack (a libc with USDT probes) is in a program of
the same name in PATH.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import end, read_until

pytestmark = pytest.mark.machine

TOOLS = ("trace", "argdist", "funccount", "funclatency", "funcslower", "funcinterval", "stackcount", "tplist")
# In place of pids and paths, which differ anyway: $PID and $BUSY are the program's, $OFFSET is of its function prime.
LIVE = [
    # trace
    (r"""trace 'c:open (arg2 == 42) "%s %d", arg1, arg2' -p $PID""", r"ARGUMENTS\n$"),
    (r"""trace 'c:malloc "size = %d", arg1' -p $PID""", r"malloc +size = 80"),
    (r"""trace ':c:malloc "size = %d", arg1' -p $PID""", r"malloc +size = 48"),
    (r"""trace 'p:c:write (arg1 == 3) "writing %d bytes to STDOUT", arg3' -p $PID""", r"writing 4 bytes to STDOUT"),
    (r"""trace 'r:c:malloc (retval) "allocated = %x", retval' -p $PID""", r"malloc +allocated = [0-9a-f]+\n"),
    (
        r"""trace 'r:c:read ((int)retval < 0) "read failed: %d", retval' """
        r"""'r:c:write ((int)retval < 0) "write failed: %d", retval' -T""",
        r"(?s)read failed: -1.*write failed: -1",
    ),
    (r"""trace 'p:c:open (STRCMP("test.txt", arg1)) "opening %s", arg1' -T""", r"opening test\.txt"),
    (r"""trace 'p:c:open(char *filename) "opening %s", filename' -p $PID""", r"opening test\.txt"),
    (r"""trace 'c:open "%s", arg1' -p $PID -n pthread -f test --uid 0""", r"open +test\.txt"),
    (r"""trace 'c:open "%s", arg1' -p $PID -f nothing""", r"ARGUMENTS\n$"),
    (r"""trace -s /lib/x86_64-linux-gnu/libc.so.6,/bin/ping 'p:c:inet_pton' -U""", r"inet_pton\n +inet_pton\+0x0\n"),
    (r"""trace 'u:pthread:pthread_create "%U", arg3' -T -C""", r"pthread_create +start_routine"),
    (r"""trace 'u:pthread:pthread_create "start addr = %llx", arg3'""", r"start addr = [0-9a-f]+"),
    (r"""trace 'u:pthread:pthread_create (arg4 != 0)'""", r"libpthread:pthread_create +arg1="),
    (r"""trace 'u:pthread:libpthread:pthread_create (arg4 == 0)'""", r"ARGUMENTS\n$"),
    (r"""trace "p:$BUSY:prime+$OFFSET \"%x\", ctx->di" """, r"prime +5\n"),
    (r"""trace 'r:c:open "%llx", retval' -U -a -p $PID -M 1""", r"(?s)open +3\n +0x[0-9a-f]{16} "),
    (r"""trace 'c:malloc "%d", arg1' -p $PID -A -M 5 -t""", r"(?s)-->COUNT 1\n"),
    (r"""trace 'p:c:nanosleep(struct timespec *ts) "sleep for %lld ns", ts->tv_nsec' -p $PID""", r"sleep for 1000 ns"),
    (r"""trace 'u:$BUSY:busy:prime "%d %s", arg1, arg2' -b 128 -Z 2""".replace("'u:$BUSY", "'u:'$BUSY'"), r"5 tw…"),
    # argdist
    (r"""argdist -p $PID -c -C 'p:c:malloc(size_t size):size_t:size'""", r"1 size = 16"),
    (r"""argdist -p $PID -C 'p:c:malloc(size_t size):size_t:size:size==16'""", r"EVENT\n +1 size = 16\n"),
    (r"""argdist -c -H 'p:c:write(int fd, void *buf, size_t len):size_t:len' -p $PID""", r" 4 \.\. 8 +: 3 "),
    (r"""argdist -c -H 'p:c:write(int fd, void *buf, size_t len):size_t:len:fd==-1' -p $PID""", r" 1 \.\. 2 +: 1 "),
    (r"""argdist -i 10 -n 1 -C 'p:c:puts(char *str):char*:str'""", r"[1-4] str = Press ENTER to start\."),
    (r"""argdist -i 10 -n 1 -C 'r:c:gets():char*:(char*)$retval:$retval!=0'""", r"[1-4] \(char \*\)\$retval = go"),
    (r"""argdist -C 'r:c:gets():char*:$retval#snooped strings'""", r"snooped strings\n.*\n +[1-4] \$retval = go"),
    (r"""argdist -i 10 -H 'r:c:read()' -p $PID""", r"average"),
    (r"""argdist -H 'r:c:malloc(size_t size):u64:$latency/$entry(size);ns per byte' -n 1 -i 10 -p $PID""", r"count 5,"),
    (r"""argdist -C 'r:c:read(int fd):u32:$PID:$latency > 1' -p $PID""", r"\$PID = \d+"),
    (r"""argdist -C 'p:c:write():int:$PID;write per process' -n 2""", r"(?s)write per process\n.*\$PID = "),
    (r"""argdist -c -H 'r:c:open(char *file):u64:$latency/1000:STRCMP("test.txt",$entry(file))'""", r"count [1-4],"),
    (r"""argdist -p $PID -C 'p:c:write(int fd):int:fd' -T 5""", r"3 fd = 3"),
    (r"""argdist -C 'p:c:fork()#fork calls'""", r"fork calls\n.*\n +\d+ total calls"),
    (r"""argdist -C 'p:c:fork():int:$PID;fork per process'""", r"\$PID = "),
    (r"""argdist -C 'u:pthread:pthread_start():u64:arg2' -p $PID""", r"1 arg2 = \d+"),
    (
        r"""argdist -p $PID -H 'p:c:sleep(u32 seconds):u32:seconds' """
        r"""-H 'p:c:nanosleep(struct timespec *req):long:req->tv_nsec'""",
        r"(?s) 0 \.\. 1 +: 1 .* 512 \.\. 1024 +: 1 ",
    ),
    (r"""argdist -p $PID -z 120 -C 'p:c:write(int fd, char* buf, size_t len):char*:buf:fd==3'""", r"3 buf = four"),
    # funccount
    (r"""funccount -p $PID "$BUSY:*" """, r"prime +5\n"),
    (r"""funccount -r 'c:(write|read)$'""", r"(?s)(read|write) +\d+\n"),
    (r"""funccount u:pthread:*mutex* -p $PID""", r"libpthread:mutex_entry +7\n"),
    (r"""funccount c:malloc""", r"malloc +\d+\n"),
    (r"""funccount -Ti 5 'c:pthread_mutex_*lock' -p $PID""", r"(?s)\d\d:\d\d:\d\d\n.*pthread_mutex_lock +\d+\n"),
    # funclatency
    (r"""funclatency pthread:pthread_mutex_lock -p $PID""", r"count [78],"),
    (r"""funclatency "$BUSY:*" -p $PID -F""", r"function=prime pid=\d+\n"),
    (r"""funclatency c:read -i 2 -d 10 -p $PID""", r"latency : count"),
    (r"""funclatency -mTi 5 c:nanosleep -p $PID""", r"latency_ms : count"),
    (r"""funclatency -u 'c:*printf' -l 3 -p $PID""", r"latency_us : count"),
    # funcslower
    (r"""funcslower -p $PID -u 0 c:malloc c:free""", r"(?s)LAT\(us\).*malloc"),
    (r"""funcslower -a 2 c:open -u 1 -T -p $PID""", r"open +0x[0-9a-f]+ 0x42\n"),
    (r"""funcslower -UK c:open -u 1 -p $PID""", r"(?s)open\n +.*read_and_write"),
    (r"""funcslower c:open -f -U -t -u 0 -p $PID""", r";read_and_write \d+\n"),
    # funcinterval
    (r"""funcinterval -p $PID c:malloc -i 3""", r"interval : count"),
    (r"""funcinterval -u c:write -d 20 -p $PID""", r"interval_us : count"),
    # stackcount
    (r"""stackcount -p $PID c:malloc""", r"  malloc\n  round_of_calls\n"),
    (r"""stackcount -P -p $PID u:pthread:pthread_create""", r"  threads_and_locks\n(.*\n)* +pthread \[\d+\]\n +1\n"),
    (r"""stackcount -sv -U -p $PID c:nanosleep""", r"0x[0-9a-f]{16} nanosleep\+0x0\n"),
    (r"""stackcount -f -r -p $PID 'c:^(sleep)$'""", r"round_of_calls;sleep 1\n"),
]
# These end by themselves.
LISTS = [
    (r"""tplist -l pthread""", r"libpthread:pthread_create"),
    (r"""tplist '*mutex*' -l pthread -v""", r"libpthread:mutex_entry(.*\n)+ +arg1"),
    (r"""tplist -vv -l pthread *create*""", r"libpthread:pthread_create(.*\n)+ +at 0x"),
    (r"""tplist -p $PID 'busy:*'""", r"busy:prime"),
    (r"""tplist -p $PID""", r"libpthread:mutex_entry"),
]


@pytest.fixture(scope="module")
def place(compile_c, tmp_path_factory):
    """The program as pthread in a directory for PATH, with shell functions for bcc's names in `tools`."""
    directory = tmp_path_factory.mktemp("bcc")
    flags = ("-O1", "-std=gnu11", "-pthread", "-Wno-deprecated-declarations")
    binary = compile_c("busy.c", *flags)
    shutil.copy(binary, directory / "pthread")
    functions = (f'{tool}() {{ exec "{sys.executable}" -m usdtkit {tool} "$@"; }}\n' for tool in TOOLS)
    (directory / "tools").write_text("".join(functions))
    return directory


@pytest.fixture(scope="module")
def shell(place):
    """shell(line) -> (output, messages) of a command line of bcc's, and a program of its own makes a round of calls."""
    environment = {
        **os.environ,
        **{"PATH": f"{place}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[2])},
        **{"BUSY": str(place / "pthread"), "OFFSET": hex(second_instruction(place / "pthread"))},
    }

    def start(argv, **more):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(argv, cwd=place, text=True, start_new_session=True, **pipes, **more)

    def run(line):
        busy = start([place / "pthread"])
        tool = start(["bash", "-c", f". {place}/tools; {line}"], env={**environment, "PID": str(busy.pid)})
        try:
            read_until(busy, "ready")
            if not line.startswith("tplist"):
                read_until(tool, "Tracing", stream="stderr", timeout=90)
                # What waits for a line now has begun to before anybody traced it.
                busy.stdin.write("attached\ngo\n")
                busy.stdin.flush()
                read_until(busy, "done")
                tool.send_signal(signal.SIGINT)
            output, messages = tool.communicate(timeout=90)
            assert tool.returncode == 0, messages
            return output, messages
        finally:
            end(tool)
            end(busy)

    return run


def second_instruction(path):
    """Bytes of the first instruction of the function prime, which pushes the frame pointer."""
    listing = subprocess.run(["gdb", "-batch", "-ex", "disassemble prime", path], text=True, capture_output=True).stdout
    return int(re.findall(r"<\+(\d+)>", listing)[1])


def test_live(shell):
    with ThreadPoolExecutor(4) as several:  # so those without -p may see four of the program
        outputs = several.map(shell, [line for line, _ in LIVE])
    wrong = [
        f"{line}\n{output}{messages}"
        for (line, expected), (output, messages) in zip(LIVE, outputs, strict=True)
        if not re.search(expected, output) or "lost 0" not in messages
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("line", "expected"), LISTS)
def test_lists(line, expected, shell):
    assert re.search(expected, shell(line)[0])


def test_they_are_many():
    assert len(LIVE) + len(LISTS) >= 60
    assert all(any(line.startswith(tool) for line, _ in LIVE + LISTS) for tool in TOOLS)
