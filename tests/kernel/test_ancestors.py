"""From which process the one that hits a probe was forked."""

import pytest

from usdtkit import trace
from usdtkit.errors import UsageError
from usdtkit.trace import ancestor

# A process forks a child, which forks one, and so on; each fires and has ended when its parent fires again.
PROGRAM = r"""
#include <pthread.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <sys/wait.h>
#include <unistd.h>
#include "program.h"
static void *fire(void *unused) { DTRACE_PROBE1(family, member, getpid()); return unused; }
static void descend(int depth) {
  pthread_t thread; /* which is no child */
  pthread_create(&thread, 0, fire, 0);
  pthread_join(thread, 0);
  printf("%d\n", getpid());
  fflush(stdout);
  if (!depth) return;
  if (!fork()) { descend(depth - 1); _exit(0); }
  wait(0);
  fire(0);
}
int main(void) {
  await_go();
  descend(5);
  return 0;
}
"""


def test_ancestors(compile_c, ready):
    program = ready([compile_c(PROGRAM, "-pthread")])
    with trace.Session() as session:
        source = session.usdt("family:member", f"/proc/{program.pid}/exe")
        source.emit(first=ancestor(1), second=ancestor(2), eighth=ancestor(8))
        session.start()
        program.stdin.close()
        pids = [int(line) for line in program.stdout]
        assert program.wait(20) == 0
        session.stop()
        events = list(session)
    chain = [0, 0, *pids]  # the first was started before the trace
    expected = {pid: (chain[n + 1], chain[n], 0) for n, pid in enumerate(pids)}
    assert [event.pid for event in events] == [*pids, *pids[-2::-1]]
    assert all((event.first, event.second, event.eighth) == expected[event.pid] for event in events)


@pytest.mark.parametrize("generations", [0, 9])
def test_generations_that_are_not_kept(generations):
    with pytest.raises(UsageError, match=f"ancestors of {generations} generations"):
        ancestor(generations)
