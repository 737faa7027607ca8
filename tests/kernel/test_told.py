"""What a trace says beside its data: only what tells its reader something, and more with -v."""

import re

import pytest
from commandline import NOBODY, end_of_tracing, go, json_lines, start_tracing, usdtkit

# Threads that are within `inside` when the trace begins, one each; then as many calls as argument 2 says, by probes
# whose ends alone, or whose starts too, are there.
PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <unistd.h>
static pthread_barrier_t within, over;
static long times;
static void *run(void *unused) {
  pthread_barrier_wait(&within);
  pthread_barrier_wait(&over);
  DTRACE_PROBE(open, done);
  for (long n = 0; n < times; n++) DTRACE_PROBE(open, done);
  DTRACE_PROBE(open, start);
  DTRACE_PROBE(open, done);
  return unused;
}
int main(int argc, char **argv) {
  int number = atoi(argv[1]);
  char line[2];
  pthread_t thread[64];
  times = atol(argv[2]);
  pthread_barrier_init(&within, 0, number + 1);
  pthread_barrier_init(&over, 0, number + 1);
  for (int n = 0; n < number; n++) pthread_create(&thread[n], 0, run, 0);
  pthread_barrier_wait(&within);
  puts("ready");
  fflush(stdout);
  read(0, line, 1);
  pthread_barrier_wait(&over);
  for (int n = 0; n < number; n++) pthread_join(thread[n], 0);
  return 0;
}
"""
PAIR = ("u::open:start", "u::open:done")


@pytest.fixture
def latencies(compile_c, ready, spawn):
    """latencies(threads, further ends of each, *options) -> (output, messages) of probelatency."""
    path = compile_c(PROGRAM, "-pthread")

    def run(threads, times, *options):
        program = ready([path, str(threads), str(times)])
        tracer = start_tracing(spawn, "probelatency", "-p", str(program.pid), *PAIR, *options)
        go(program)
        return end_of_tracing(tracer)

    return run


def test_calls_that_were_under_way_are_not_announced(latencies):
    _, messages = latencies(7, 0)
    assert messages.splitlines()[-1] == "7 hits, lost 0, from 1 file in 1 process"
    _, _, summary = json_lines(latencies(7, 0, "--json")[0])
    assert (summary["hits"], summary["unmatched"]) == (7, 7)


def test_more_ends_than_there_were_threads_are_announced(latencies):
    _, messages = latencies(7, 97)
    assert f"{7 * 98} ends without a start" in messages.splitlines()[-1]


STEPPED = r"""
__asm__(".text\n.globl getaddrinfo\n.type getaddrinfo,@function\ngetaddrinfo: sub $8,%rsp\nadd $8,%rsp\nret\n"
        ".size getaddrinfo,.-getaddrinfo\n");
void getaddrinfo(void);
int main(void) { getaddrinfo(); return 0; }
"""


def test_single_steps_are_announced_where_the_user_chose_the_sites(compile_c):
    path = compile_c(STEPPED)
    for tool in ("trace", "funccount", "funclatency", "stackcount"):
        done = usdtkit(tool, f"{path}:getaddrinfo", "-c", path)
        assert done.returncode == 0, done.stderr
        assert "single-stepped" in done.stderr


@pytest.mark.parametrize("tool", ["memleak", "mutexstat"])
def test_single_steps_of_a_tools_own_sites_are_announced_with_v(tool):
    quiet, verbose = (usdtkit(tool, "-c", "true", *options) for options in ((), ("-v",)))
    explained = usdtkit(tool, "-c", "true", "--explain")
    assert quiet.returncode == verbose.returncode == explained.returncode == 0
    # Which depends on how this machine's C library was compiled. That of returns is nobody's choice.
    if any(line.startswith("entry") and " stepped " in line for line in explained.stdout.splitlines()):
        assert "single-stepped" in verbose.stderr
        assert "single-stepped" in explained.stderr
    assert "single-stepped" not in quiet.stderr


def test_the_files_that_are_traced_are_told_with_v():
    quiet, verbose = (usdtkit("gethostlatency", "-c", "true", *options) for options in ((), ("-v",)))
    assert not re.search(r"\d sites in /", quiet.stderr)
    assert re.search(r"^usdtkit: \d+ sites in /\S*libc\.so\.6$", verbose.stderr, re.M)


def test_processes_that_may_not_be_looked_into_are_named_with_v(spawn):
    other = spawn(["sleep", "1000"])
    quiet, verbose = (usdtkit("list", "nosuch:*", *options, prefix=NOBODY) for options in ((), ("-v",)))
    assert quiet.returncode == verbose.returncode == 4
    assert "may not be inspected" not in quiet.stderr
    lines = [line for line in verbose.stderr.splitlines() if "may not be inspected" in line]
    assert len(lines) == 1
    assert f" {other.pid} (sleep)" in lines[0]


def test_v_shows_the_program_in_the_tools_of_bcc_that_have_it():
    assert "int hook_0" in usdtkit("funclatency", "c:getppid", "-c", "true", "-v").stderr
    assert "int hook_0" not in usdtkit("funccount", "c:getppid", "-c", "true", "-v").stderr
