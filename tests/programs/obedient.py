"""A Python service that does what it is told on its standard input, and says what it did.

It says "ready". "fire N [SIZE]" fires lab:hit(number, text) N times ("fired N"), with texts of SIZE or more. "say TEXT"
fires it with a text, \\-escapes in it ("said"), and "enabled" prints whether somebody traces it ("enabled True").
"""

import sys

from usdtkit import Provider

provider = Provider("lab")
hit = provider.probe("hit", number="u64", text="str")
other = provider.probe("other", done="bool")

if __name__ == "__main__":
    provider.load()
    print("ready", flush=True)
    for line in sys.stdin:
        command, _, rest = line.rstrip("\n").partition(" ")
        if command == "fire":
            times, size = [*map(int, rest.split()), 0][:2]
            for number in range(times):
                hit(number, f"text {number}".ljust(size))
            other(True)
            print("fired", times, flush=True)
        elif command == "say":
            hit(0, rest.encode().decode("unicode_escape"))
            print("said", flush=True)
        elif command == "enabled":
            print("enabled", hit.enabled, flush=True)
