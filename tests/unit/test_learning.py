"""How often processes are looked at that keep mapping files."""

import os
import sys
import threading
import time
from collections import deque

from usdtkit.files import OpenFile
from usdtkit.trace.learning import PAUSE_S, Learning


class Looks:
    """Whom it has looked at, and when."""

    def __init__(self, **options):
        self.at, self.changed = [], threading.Condition()
        self.learning = Learning(self.look, deque(), **{"files": (), "ignored": (), "looks_around": False} | options)

    def look(self, pid):
        with self.changed:
            self.at.append((pid, time.monotonic()))
            self.changed.notify_all()

    def wait(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.at) >= count, 20)

    def __enter__(self):
        self.learning.begin()
        return self

    def __exit__(self, *_):
        self.learning.end()


def test_once_in_a_while_and_after_the_last_time():
    with Looks(ignored=[31]) as looks:
        for _ in range(997):
            looks.learning.ask(17)
            looks.learning.ask(31)
        looks.wait(2)
        looks.learning.ask(19)
        looks.wait(3)
    pids, times = zip(*looks.at, strict=True)
    assert pids[:2] == (17, 17)
    assert times[1] - times[0] >= PAUSE_S
    assert pids.count(19) == 1
    assert set(pids) == {17, 19}


def test_those_that_run_already_and_map_a_traced_file():
    with Looks(files=[OpenFile.open(os.path.realpath(sys.executable))], looks_around=True) as looks:
        looks.learning.look_around(20)
        assert os.getpid() in [pid for pid, _ in looks.at]


def test_a_look_that_fails_is_not_the_last_one():
    class Failing(Looks):
        def look(self, pid):
            super().look(pid)
            if pid == 17:
                raise OSError

    with Failing() as looks:
        looks.learning.ask(17)
        looks.learning.ask(19)
        looks.wait(2)
    assert [pid for pid, _ in looks.at] == [17, 19]


def test_the_end_of_what_never_began():
    looks = Looks()
    looks.learning.end()
    looks.learning.end()
    assert looks.at == []
