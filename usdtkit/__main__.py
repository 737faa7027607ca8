"""The command `usdtkit`, which is also `python -m usdtkit`: `usdtkit.cli.main`, and the end of the process.

Before it imports anything else, root's sys.path is put in order: see `_leave_out_what_others_can_write`.
"""

# ruff: noqa: PTH100, PTH116

import gc
import os
import sys


def run() -> None:
    """Run the command and end the process with its exit code, without taking the interpreter apart first.

    Nothing of that is seen from outside but the time that it takes. What was to be done at the end is done, and what
    was written is flushed.
    """
    gc.disable()  # what is imported stays: nothing to collect until a command runs, see `usdtkit.cli`
    if os.geteuid() == 0 and not sys.flags.isolated:
        _leave_out_what_others_can_write()
    import atexit
    import contextlib

    from usdtkit.cli import main

    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, or not there
            stream.flush()
    os._exit(code)


def _leave_out_what_others_can_write() -> None:
    """Import only from Python's own directories, and after these from directories that only root can write to.

    PYTHONPATH and the packages in a home may be those of the user who called, whose environment was kept (sudo -E, su).
    Such a directory is removed from sys.path if another user could put a module there, and else moved to the end. The
    directory of the script, which is the current directory with `python -m`, is removed. The installed command starts
    Python with -I, and so has none of these directories. Only -I also prevents the import of a sitecustomize, which
    happens before this code runs.
    """
    if not getattr(sys.flags, "safe_path", False):  # Python 3.11
        del sys.path[:1]
    added = set()
    if named := os.environ.get("PYTHONPATH"):
        try:
            added = {os.path.abspath(path) for path in named.split(":")}
        except FileNotFoundError:  # the current directory is gone, and with it what is found from there
            added = {path for path in named.split(":") if path.startswith("/")}
    site = sys.modules.get("site")
    if site is not None and site.ENABLE_USER_SITE:
        added.add(site.getusersitepackages())
    installed = tuple(f"{os.path.abspath(prefix)}/" for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix))
    behind = [path for path in sys.path if path in added and not path.startswith(installed)]
    if not behind:
        return
    sys.path[:] = [path for path in sys.path if path not in behind]
    from usdtkit.errors import UsdtkitError
    from usdtkit.privatedirs import open_directory

    for path in behind:
        try:
            with open_directory(path) as directory:
                status = os.fstat(directory.descriptor)
            # In a sticky directory nobody can exchange a module, but anybody can add one.
            if not status.st_mode & 0o022 and not os.path.samestat(status, os.stat(".")):
                sys.path.append(path)
        except (OSError, UsdtkitError):  # not there, or another user could change it
            continue


if __name__ == "__main__":
    run()
