"""Runs within gdb, started by gdb.py: attaches to the process `pid`, and tells the frames at each stop by SIGSTOP.

Input: lines, "continue" or "detach". Output: "attached", and for each stop a line of JSON: the thread, the addresses of
its frames, innermost first, and why the last one has no caller.
"""

import json
import sys

import gdb

SETTINGS = (
    "confirm off",
    "pagination off",
    "auto-load off",
    "debuginfod enabled off",
    "debug-file-directory /nonexistent",  # with debug information gdb also shows what was inlined or left by a jump
    "backtrace past-main on",
    "backtrace past-entry on",
    "backtrace limit unlimited",
    "print thread-events off",
)
NOT_ON_THE_STACK = (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME)
stopped_by = []


def say(text):
    print(text, flush=True)


def note(event):
    stopped_by.append(getattr(event, "stop_signal", type(event).__name__))


def frames():
    """The addresses of the selected thread's frames, and why there are no more."""
    frame, found, reason = gdb.newest_frame(), [], ""
    while frame is not None:
        if frame.type() not in NOT_ON_THE_STACK:
            found.append(frame.pc())
        reason = gdb.frame_stop_reason_string(frame.unwind_stop_reason())
        frame = frame.older()
    return found, reason


def run():
    for setting in SETTINGS:
        gdb.execute(f"set {setting}")
    gdb.execute("handle all nostop noprint pass", to_string=True)
    gdb.execute("handle SIGSTOP stop nopass", to_string=True)
    gdb.execute(f"attach {pid}", to_string=True)  # noqa: F821  which gdb.py has set
    gdb.events.stop.connect(note)
    gdb.events.exited.connect(note)
    say("attached")
    for line in sys.stdin:
        if line == "detach\n":
            gdb.execute("detach", to_string=True)
            return
        stopped_by.clear()
        gdb.execute("continue", to_string=True)
        if stopped_by != ["SIGSTOP"]:
            say(json.dumps({"otherwise": stopped_by}))
            return
        found, reason = frames()
        say(json.dumps({"tid": gdb.selected_thread().ptid[1], "frames": found, "reason": reason}))


run()
