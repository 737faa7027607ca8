"""An application that fires 997 times, and a command that traces it: `python - COMMAND…` prints what that prints.

It runs on a bare machine, so it uses the standard library and usdtkit alone. Its exit status is that of the command.
"""

import os
import signal
import subprocess
import sys

from usdtkit import Provider

shop = Provider("bareshop")
order_start = shop.probe("order__start", order_id="u64", customer="str")
shop.load()
tracer = subprocess.Popen([*sys.argv[1:], "-p", str(os.getpid())], stderr=subprocess.PIPE, text=True)
for line in tracer.stderr:
    sys.stderr.write(line)
    if "Tracing" in line:
        break
for number in range(997):
    order_start(number, "ada")
tracer.send_signal(signal.SIGINT)
sys.stderr.write(tracer.stderr.read())
sys.exit(tracer.wait())
