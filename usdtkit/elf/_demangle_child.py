"""The child process of `usdtkit.elf.demangle`: mangled names on standard input, one result a line on standard output.

Arguments: bytes of memory, seconds of processor time, the most characters of a result, whether each line is written at
once (0 or 1), and the directory that contains pycxxfilt. It is run as a script, without the site module, and imports
nothing of ours. A name that cannot be demangled gives an empty line. LLVM ends the process if memory runs out.
"""

from __future__ import annotations

import resource
import sys


def main() -> None:
    """Demangle all lines of standard input."""
    memory, seconds, longest, flushes = map(int, sys.argv[1:5])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.insert(0, sys.argv[5])
    from pycxxfilt import demangle

    for name in sys.stdin.read().split("\n")[:-1]:
        try:
            result = demangle(name) or ""
        except (ValueError, MemoryError):
            result = ""
        sys.stdout.write((result if len(result) <= longest else "") + "\n")
        if flushes:
            sys.stdout.flush()


if __name__ == "__main__":
    main()
