"""Start service.py, trace it from here, let client.py send orders, and compare the counts.

Output: a live table of orders, their latencies, and `fired N, received N, lost 0`, where N comes from the service's own
count. Then it traces the same probes with bpftrace, which is independent of usdtkit. The exit code is 1 if any count
differs.
"""

import argparse
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

from usdtkit import UsdtkitError, trace
from usdtkit.output.histogram import render
from usdtkit.output.sink import open_sink
from usdtkit.results import PID, TIME, Column, Rows, Schema
from usdtkit.trace import usdt

HERE = Path(__file__).parent
COLUMNS = (
    TIME,
    PID,
    Column("order_id", "ORDER", "count", 6),
    Column("customer", "CUSTOMER", "text", 10),
    Column("status", "STATUS", "integer", 6),
    Column("latency_ns", "LATENCY ms", "duration", 10, unit="ms"),
)
BPFTRACE = """
BEGIN { printf("attached\\n"); }
usdt:*:shop:order__start { @orders = count(); if (arg0 % 20 == 0) { printf("%d %s\\n", arg0, str(arg1)); } }
"""


@contextlib.contextmanager
def running(*argv, **options):
    """A child process that ends with the block."""
    process = subprocess.Popen(
        [str(part) for part in argv], stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def stats(url):
    """How often the service has fired each probe."""
    with urlopen(f"{url}/stats") as answer:
        return json.load(answer)


def watch(pid, url, orders, rows):
    """Trace the client's orders: the first `rows` as they come, then the histogram. True when no order is missing."""
    with trace.Session(pid=pid) as session, ThreadPoolExecutor(1) as waiting:
        # From the start of an order to its done, in the same thread.
        order = session.pair(usdt("shop:order__start"), usdt("shop:order__done"), keep=["order_id", "customer"])
        order.emit("order_id", "customer", "status", "latency")
        latencies = order.hist(order.latency)
        session.start()
        table = open_sink("table", sys.stdout)
        table.begin(Schema("shop", COLUMNS))
        with running(sys.executable, HERE / "client.py", url, "--orders", orders) as client:
            waiting.submit(lambda: (client.wait(), session.stop()))
            for number, row in enumerate(Rows(session, COLUMNS)):
                if number < rows:
                    table.row(row)
            print(f"… and {max(0, session.received - rows)} more\n\n{client.stdout.read()}")
        print("\n".join(render(latencies.read()[()], "latency")))
        summary, fired = session.summary(), stats(url)
    print(f"\nfired {fired['order__done']}, received {summary.received}, lost {summary.lost}")
    return {orders} == {*fired.values(), summary.received} and summary.lost == 0


def same_with_bpftrace(pid, url, orders):
    """Let bpftrace count the same probe. True when it counts as many as the service."""
    if shutil.which("bpftrace") is None:
        print("\nbpftrace can count the same probes: apt-get install bpftrace, then make demo again, or with a PID:")
        print(f"  bpftrace -p PID -e '{BPFTRACE}'")
        return True
    print(f"\nbpftrace -p {pid} -e '{BPFTRACE}'")
    before = stats(url)["order__start"]
    with running("bpftrace", "-p", pid, "-e", BPFTRACE, stderr=subprocess.STDOUT) as bpftrace:
        said = []
        while "attached\n" not in said:
            said.append(bpftrace.stdout.readline())
            if not said[-1]:
                print(*said, "bpftrace ended before it had attached", sep="")
                return False
        client = [sys.executable, HERE / "client.py", url, "--orders", str(orders)]
        subprocess.run(client, check=True, stdout=subprocess.DEVNULL)
        bpftrace.send_signal(signal.SIGINT)
        seen, _ = bpftrace.communicate()
    print(seen.strip())
    fired = stats(url)["order__start"] - before
    return f"@orders: {fired}\n" in seen and fired == orders


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=997, metavar="N")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="of the table")
    options = parser.parse_args()
    with running(sys.executable, HERE / "service.py") as service:
        url = service.stdout.readline().split()[-1]
        print(f"order service: pid {service.pid}, {url}")
        try:
            good = watch(service.pid, url, options.orders, options.rows) and same_with_bpftrace(service.pid, url, 97)
        except UsdtkitError as error:
            print(error.message, error.hint or "", sep="\n", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
