"""Greenlets, whose stacks are copied away and back, and threads that end while the interpreter does. See case.h."""

import os
import sys
import threading

paused = False


def say(text):
    os.write(1, f"{text}\n".encode())


def await_line():
    while os.read(0, 1) not in (b"\n", b""):
        pass


def pause_inside():
    global paused
    if not paused:
        paused = True
        say("inside")
        await_line()


def traces(*names):
    for name in names:
        say(f"traces {name}")


class Value:
    """Its methods are called by the interpreter's C code, which calls the interpreter again."""

    def __init__(self, number, act=None):
        self.number = number
        self.act = act

    def __lt__(self, other):
        if self.act:
            self.act()
        return self.number < other.number


def greenlets():
    from greenlet import getcurrent, greenlet

    switches = 0

    def switch():
        nonlocal switches
        switches += 1
        pause_inside()
        getcurrent().parent.switch(switches)

    def job(number):
        values = [Value(n * 61 % 97, switch if n % 10 == 0 else None) for n in range(97)]
        return [value.number for value in sorted(values)] == list(range(97)) and number

    jobs, results = [greenlet(job) for _ in range(5)], []
    for number, each in enumerate(jobs):
        each.switch(number)
    while jobs:
        for each in list(jobs):
            result = each.switch()
            if each.dead:
                jobs.remove(each)
                results.append(result)
    say(f"switches {switches}, results {sorted(results)}")
    traces("_PyEval_EvalFrameDefault", "PyObject_RichCompare*", "PyList_Sort", "_PyFunction_Vectorcall")


def gevents():
    import gevent

    def job(number):
        total = 0
        for i in range(20):
            total += i * number
            pause_inside()
            gevent.sleep(0)
            if i == number + 10:
                raise KeyError(number)
        return total

    jobs = [gevent.spawn(job, number) for number in range(13)]
    for each in jobs:
        each.parent.print_exception = lambda *_: None  # it tells the address of the greenlet
    gevent.joinall(jobs)
    say(f"values {[each.value for each in jobs]}, {[repr(each.exception) for each in jobs if each.exception]}")
    traces("_PyEval_EvalFrameDefault", "PyObject_Vectorcall", "PyObject_Call", "_PyFunction_Vectorcall")


def exceptions():
    caught = 0

    def refuse():
        pause_inside()
        raise KeyError

    for n in range(97):
        try:
            sorted([Value(3), Value(1, refuse if n % 2 else None)])
        except KeyError:
            caught += 1
    say(f"caught {caught}")
    traces("_PyEval_EvalFrameDefault", "PyObject_RichCompare*", "PyList_Sort", "PyObject_Call")


def daemons():
    """Threads that still run Python when the interpreter ends: it lets them leave by pthread_exit."""

    def spin():
        while True:
            sorted([Value(2, lambda: None), Value(1)])

    for _ in range(4):
        threading.Thread(target=spin, daemon=True).start()
    pause_inside()
    sorted([Value(2, lambda: None), Value(1)])
    traces("_PyEval_EvalFrameDefault", "PyObject_RichCompare*", "PyList_Sort", "PyEval_RestoreThread", "Py_FinalizeEx")


say("ready")
await_line()
{each.__name__: each for each in (greenlets, gevents, exceptions, daemons)}[sys.argv[1]]()
say("done")
sys.exit(42)
