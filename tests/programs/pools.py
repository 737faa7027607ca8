"""A Python program whose work is done by other processes, started as its first argument says: fork, spawn, forkserver.

Says "ready"; after a line the processes of each kind of pool, once they are traced, call `leaf` CALLS times a task;
then it says "done" and with which codes the processes have ended.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

CALLS, WORKERS, TASKS = 97, 2, 5


def leaf():
    return 1


def task(number):
    from usdtkit.instrument import python

    while "function__entry" not in python.traced():
        time.sleep(0.001)  # a tracer is noticed now and then
    for _ in range(CALLS):
        leaf()


def work(context):
    with context.Pool(WORKERS) as pool:
        pool.map(task, range(TASKS), chunksize=1)
    processes = [context.Process(target=task, args=(number,)) for number in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        list(pool.map(task, range(TASKS)))
    return [process.exitcode for process in processes]


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print("done", *work(multiprocessing.get_context(sys.argv[1])), flush=True)
