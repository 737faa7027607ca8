"""What walks along stacks meet besides tables: code made at run time, files without them, depth, and many threads."""

import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from commandline import from_main, go
from leaks import bpf_objects

from usdtkit import trace
from usdtkit.trace import CutStacks, ustack
from usdtkit.unwind.mapped import ANY_CODE

TIMES = 997


@pytest.fixture
def stacks(ready, wait_for_line):
    """stacks(path, *arguments, last="done", capacity=None) -> (hits, summary) of work() in a program that says `last`
    when it has done all. Hits are by the names of the calls, innermost first, and why these end; by None without a
    stack."""

    def take(path, *arguments, last="done", capacity=None):
        program = ready([path, *arguments])
        with trace.Session(pid=program.pid, capacity=capacity) as session:
            counts = session.uprobe(str(path), "work").count(stack=ustack)
            session.start()
            go(program)
            wait_for_line(program, last)
            session.detach()
            found = Counter()
            for (stack,), count in counts.read().items():
                found[stack and (calls(stack), stack.end)] += count
            return dict(found), session.summary()

    return take


def calls(stack):
    """The names of the calls up to main, innermost first; of all if the walk has not come to the first instruction."""
    found = tuple(frame.name for frame in stack)
    return tuple(from_main(found[::-1])[::-1]) if found[-1] == "_start" else found


def test_through_code_that_is_made_at_run_time(compile_c, stacks):
    """A walk goes on behind it where it keeps the chain of frame pointers, and else says that it is cut."""
    found, summary = stacks(compile_c("generated.c", "-O2", "-fomit-frame-pointer"), TIMES)
    made = ""  # which has no name
    assert found == {
        (("work", "inner", made, "keeping", "main"), ""): TIMES,
        (("work", "inner", made), "code without tables"): 2 * TIMES,
    }
    assert summary.cut_stacks == (CutStacks("code without tables", 2),)


DEEP = """
#include "program.h"
volatile long sum;
NOINLINE void work(long n) { sum += n; }
NOINLINE long deep(long n)
{
    if (n > 1)
        return deep(n - 1) + sum;
    work(n);
    return sum;
}
int main(int argc, char **argv)
{
    await_go();
    for (int i = 0; i < 997; i++)
        deep(number(argc, argv, 1, 0));
    puts("done"); fflush(stdout);
    await_go();
    return 0;
}
"""


@pytest.mark.parametrize(
    ("depth", "expected", "end"),
    [(40, ("work", *["deep"] * 40, "main"), ""), (200, ("work", *["deep"] * 126), "the limit of 127 frames")],
)
def test_deep_recursion_without_frame_pointers(depth, expected, end, compile_c, stacks):
    found, summary = stacks(compile_c(DEEP, "-O2", "-fomit-frame-pointer"), depth)
    assert found == {(expected, end): TIMES}
    assert summary.cut_stacks == ((CutStacks(end, 1),) if end else ())


def test_walks_do_not_depend_on_the_capacity_of_tables(compile_c, stacks):
    found, summary = stacks(compile_c(DEEP, "-O2", "-fomit-frame-pointer"), 1, capacity=1)
    assert found == {(("work", "deep", "main"), ""): TIMES}
    assert (summary.stacks, summary.full, summary.no_stack) == (1, 0, 0)


CHAINS = {("work", *calls, "main"): TIMES for calls in (["left"], ["deeper", "right"], ["descend"] * 3)}


@pytest.fixture
def stripped(compile_c, tmp_path):
    """stripped(*flags) -> the program of chains.c without call frame information, which says nothing of libc."""

    def strip(*flags):
        path = tmp_path / "stripped"
        subprocess.run(["objcopy", "--remove-section=.eh_frame*", compile_c("chains.c", *flags), path], check=True)
        return path

    return strip


def test_a_file_without_tables_that_keeps_frame_pointers(stripped, stacks):
    found, _ = stacks(stripped("-O2", "-fno-omit-frame-pointer"), TIMES, last="descend")
    assert found == {(chain, ""): count for chain, count in CHAINS.items()}


def test_a_file_without_tables_and_frame_pointers(stripped, stacks):
    """The caller is known all the same, because its address lies where the call has put it."""
    found, summary = stacks(stripped("-O2", "-fomit-frame-pointer"), TIMES, last="descend")
    assert found == {(chain[:2], "code without tables"): count for chain, count in CHAINS.items()}
    assert summary.cut_stacks == (CutStacks("code without tables", 3),)


THREADS = """
#include <limits.h>
#include <pthread.h>
#include "program.h"
volatile long sum;
static pthread_barrier_t all;
NOINLINE void work(long n) { sum += n; }
static void *thread(void *unused)
{
    work(1);
    pthread_barrier_wait(&all);
    return unused;
}
int main(int argc, char **argv)
{
    long count = number(argc, argv, 1, 97);
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, PTHREAD_STACK_MIN);
    pthread_barrier_init(&all, NULL, count + 1);
    await_go();
    for (long i = 0; i < count; i++)
        if (pthread_create(&threads[i], &small, thread, NULL))
            return 1;
    pthread_barrier_wait(&all);
    for (long i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    puts("done"); fflush(stdout);
    return 0;
}
"""


def of_threads(found):
    """The same counts, by two names, the number of frames, and the end: libc's own two may have no names."""
    return {(*names[:2], len(names), end): count for (names, end), count in found.items()}


def test_more_threads_at_once_than_there_is_room_for(compile_c, stacks):
    """The others have no stack, which is counted."""
    found, summary = stacks(compile_c(THREADS, "-O2", "-pthread"), 9000)
    without = found.pop(None)
    assert of_threads(found) == {("work", "thread", 4, ""): 9000 - without}
    assert 0 <= 9000 - without - 4096 < os.cpu_count()  # those that come at once for the last place
    assert (summary.hits, summary.no_stack) == (9000, without)


FAMILY = """
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#include "program.h"
volatile long sum;
NOINLINE void work(long n) { sum += n; }
static void *thread(void *unused) { work(1); return unused; }
static int in_thread(void)
{
    pthread_t started;
    return pthread_create(&started, NULL, thread, NULL) || pthread_join(started, NULL);
}
int main(int argc, char **argv)
{
    await_go();
    for (int i = 0; i < 97; i++) {
        if (fork() == 0) {
            work(2);
            if (argc > 1)
                execl("/bin/true", "true", argv[1], (char *)NULL);
            _exit(in_thread());
        }
        wait(NULL);
        if (in_thread())
            return 1;
    }
    return 0;
}
"""


@pytest.mark.parametrize("arguments", [(), ("exec",)], ids=["forks", "execs"])
@pytest.mark.parametrize("is_one", [True, False], ids=["of a process", "of all"])
def test_nothing_is_kept_of_threads_and_processes_that_have_ended(is_one, arguments, compile_c, ready):
    path = compile_c(FAMILY, "-O2", "-pthread")
    program = ready([path, *arguments])
    with trace.Session(pid=program.pid if is_one else None) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        go(program)
        assert program.wait(20) == 0
        maps = session._running._loaded.maps
        assert dict(maps["walks"].items()) == {}
        assert [key for key, _ in maps["unwind_processes"].items()] == [bytes(4)]  # what all processes have in common
        assert sum(counts.read().values()) == 97 * (1 if is_one else 2 if arguments else 3)
        assert session.summary().no_stack == 0


def test_a_child_has_nothing_of_an_earlier_process_with_its_number(compile_c, spawn):
    path = compile_c(FAMILY, "-O2", "-pthread")
    with trace.Session() as session:
        session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        processes = session._running._loaded.maps["unwind_processes"]
        latest = int(Path("/proc/loadavg").read_text().split()[-1])
        following = [pid.to_bytes(4, "little") for pid in range(latest + 1, latest + 900)]
        for pid in following:
            processes[pid] = ANY_CODE
        parent = spawn(["sh", "-c", "exec 3<&0; (read line <&3) & echo $!; wait"])
        child = int(parent.stdout.readline()).to_bytes(4, "little")
        left = {pid for pid, _ in processes.items()}
        assert child in following
        assert len(left) > 99
        assert child not in left


# `loses` keeps the frame pointer of its caller where no row can say, and uses the register for what looks like a frame
# that `never` has called.
LOST = """
#include "program.h"
volatile long sum;
NOINLINE void work(long n) { sum += n; }
NOINLINE void never(void) { sum++; }
void loses(long *frame);
__asm__(".text\\n.type loses, @function\\nloses: .cfi_startproc\\n"
        "push %rbp\\n .cfi_adjust_cfa_offset 8\\n .cfi_escape 0x10, 6, 2, 0x77, 0\\n" /* it is at rsp + 0 */
        "mov %rdi, %rbp\\n call work\\n pop %rbp\\n .cfi_adjust_cfa_offset -8\\n ret\\n"
        ".cfi_endproc\\n.size loses, .-loses\\n");
NOINLINE void keeps(void)
{
    long frame[] = {0, (long)never + 4};
    loses(frame);
    sum += frame[0];
}
int main(void)
{
    await_go();
    for (int i = 0; i < 997; i++)
        keeps();
    puts("done"); fflush(stdout);
    await_go();
    return 0;
}
"""


def test_a_frame_pointer_that_no_row_knows_leads_nowhere(compile_c, stacks):
    end = "a caller that is not further up"
    found, _ = stacks(compile_c(LOST, "-O2", "-fno-omit-frame-pointer"))
    assert found == {(("work", "loses", "keeps"), end): TIMES}


LEFT = """
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "program.h"
volatile long sum;
NOINLINE void work(long n) { sum += n; }
static char state(void)
{
    char line[512] = "";
    FILE *stat = fopen("/proc/self/stat", "r");
    if (!stat || !fgets(line, sizeof line, stat))
        abort();
    fclose(stat);
    return strrchr(line, ')')[2];
}
static void *thread(void *unused)
{
    while (state() != 'Z')
        ;
    for (int i = 0; i < 997; i++)
        work(i);
    puts("done"); fflush(stdout);
    await_go();
    exit(0);
}
int main(void)
{
    pthread_t started;
    await_go();
    pthread_create(&started, NULL, thread, NULL);
    pthread_exit(NULL);
}
"""


def test_a_process_whose_first_thread_has_ended(compile_c, stacks):
    found, summary = stacks(compile_c(LEFT, "-O2", "-pthread"))
    assert of_threads(found) == {("work", "thread", 4, ""): TIMES}
    assert summary.no_stack == 0


def test_a_session_that_is_closed_keeps_nothing_in_the_kernel(compile_c, ready):
    path = compile_c(DEEP, "-O2")
    program = ready([path, 1])
    before = bpf_objects(os.getpid())
    with trace.Session(pid=program.pid) as session:
        counts = session.uprobe(str(path), "work").count(stack=ustack)
        session.start()
        go(program)
        assert program.stdout.readline() == "done\n"
        [(stack,)] = counts.read()
    assert calls(stack) == ("work", "deep", "main")
    assert bpf_objects(os.getpid()) == before
