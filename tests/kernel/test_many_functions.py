"""All functions of libc in one session: what the kernel refuses is found by bisection, one by one; the rest works."""

import pytest

from usdtkit import targets, trace


def test_all_functions_of_libc(stepper):
    target = stepper()
    functions = targets.find_functions("c", ["*"], pids=[target.pid])
    with trace.Session(pid=target.pid) as session:
        counts = session.uprobe("c", "*").count()
        session.start()
        refused = {refusal.file_offset for refusal in session.refused}
        assert len(session.refused) == len(refused) < len(functions) / 2
        target.fire(97)
        assert counts.read()[()] >= 97  # snprintf, for one, is called for each
    offsets = {function.file_offset for function in functions}
    assert refused <= offsets

    # Each of the refused is refused on its own, by the other method too; a sample of the rest is not.
    with trace.Session(pid=target.pid, method="perf_link") as session:
        few = [function for function in functions if function.file_offset in refused][:5]
        few += [function for function in functions if function.file_offset not in refused][::400]
        session.uprobe("c", *dict.fromkeys(function.name for function in few)).count()
        session.start()
        assert {refusal.file_offset for refusal in session.refused} == {
            function.file_offset for function in few if function.file_offset in refused
        }


ALIASED = """
#include <stdio.h>
__attribute__((noinline)) void _Internal(void) { __asm__ volatile("nop"); }
void public_name(void) __attribute__((alias("_Internal")));
void another_name(void) __attribute__((alias("_Internal")));
int main(void) { puts("ready"); fflush(stdout); getchar(); for (int i = 0; i < 97; i++) public_name(); return 0; }
"""


@pytest.mark.parametrize(
    ("asked", "named"),
    [(["*_name", "_Internal"], "_Internal"), (["*n*"], "another_name"), (["public_name"], "public_name")],
)
def test_a_function_with_several_names_is_attached_to_once(compile_c, ready, asked, named):
    path = str(compile_c(ALIASED))
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        calls = session.pair(trace.uprobe(path, *asked))
        calls.emit("latency")
        session.start()
        process.stdin.close()
        events = [event.probe for event in session]
    assert events.count(named) == 97
    assert not {"public_name", "another_name", "_Internal"} - {named} & set(events)
