"""A Python service that fires a known number of times: `python firing.py TIMES [THREADS [SECONDS]]`.

Each thread fires counted:order__start(order_id, customer) TIMES times, over SECONDS. Says "ready PATH" with its
provider file, awaits a line, and prints "fired N".
"""

import sys
import threading
import time

from usdtkit import Provider

times, threads, seconds = (int(value) for value in [*sys.argv[1:], "1", "0"][:3])
provider = Provider("counted")
order_start = provider.probe("order__start", order_id="u64", customer="str")


def fire(thread):
    for number in range(times):
        order_start(thread * 1_000_000 + number, f"customer {number}")
        if seconds:
            time.sleep(seconds / times)


if __name__ == "__main__":
    provider.load()
    print("ready", provider.files[0], flush=True)
    sys.stdin.readline()
    running = [threading.Thread(target=fire, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print("fired", times * threads, flush=True)
