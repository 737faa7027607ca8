"""The command `usdtkit`, which is also `python -m usdtkit`: `usdtkit.cli.main`, and the end of the process."""

import atexit
import contextlib
import gc
import os
import sys

gc.disable()  # what is imported stays: nothing to collect until a command runs, see `usdtkit.cli`
from usdtkit.cli import main  # noqa: E402


def run() -> None:
    """Run the command and end the process with its exit code, without taking the interpreter apart first.

    Nothing of that is seen from outside but the time that it takes. What was to be done at the end is done, and what
    was written is flushed.
    """
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or not there
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
