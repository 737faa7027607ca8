"""What is remembered of processes whose stacks come, and how often they are looked at."""

import os

from usdtkit.trace import stacks as module
from usdtkit.trace.memory import AddressSpace
from usdtkit.trace.stacks import Stacks

UNKNOWN = 1 << 62  # of an address in no mapping that the kernel knows
RECORD_SIZE = 5160


class Ring:
    """Definitions that wait."""

    def __init__(self):
        self.waiting = []

    def payloads(self):
        waiting, self.waiting = self.waiting, []
        return waiting


class Unwinder:
    """Whom it was asked to look at again."""

    def __init__(self):
        self.asked, self.right = [], []
        self.learn_again, self.was_right = self.asked.append, self.right.append

    def are_compiled(self, pid, addresses):
        assert addresses == [0x1000]
        return False


def definition(number, pid, mark=0):
    """A stack of one frame."""
    head = module._HEAD.pack(number, pid, 1, 0, 0, pid, 0, 0, 0)
    return (head + (0x1000 | mark).to_bytes(8, "little")).ljust(RECORD_SIZE, b"\0")


def test_a_process_is_looked_at_once_for_all_new_stacks_that_lead_to_unknown_code():
    stacks, ring = Stacks([], []), Ring()
    stacks.unwinder = unwinder = Unwinder()
    stacks.open(ring)
    gone = 2**31 - 1
    for first in (1, 1000):
        ring.waiting = [definition(number, gone - number % 2, UNKNOWN) for number in range(first, first + 997)]
        stacks.collect()
    assert sorted(unwinder.asked) == sorted(2 * [gone - 1, gone])
    ring.waiting = [definition(5000, gone)]
    stacks.collect()
    assert unwinder.right == [gone]
    assert stacks.get(5000).end == ""
    assert stacks.get(1).end == "memory that is not known to have code"


def test_only_the_latest_processes_are_remembered(monkeypatch):
    memory = AddressSpace.of(os.getpid(), Stacks([], [])._files)
    monkeypatch.setattr(AddressSpace, "of", lambda pid, files: memory)
    monkeypatch.setattr(module, "_MOST_PROCESSES", 97)
    stacks = Stacks([], [])
    for pid in range(997):
        stacks.learn(pid)
        stacks.learn(7)
    known = [pid for pid in range(997) if stacks.knows([pid])]
    assert known == [7, *range(997 - 96, 997)]
