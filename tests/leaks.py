"""What a kernel test may leave behind: nothing. Two snapshots of what this process holds, and the difference in words.

Read by the `nothing_leaks` fixture in conftest.py. BPF programs, maps, links and perf events are file descriptors (or
mappings of one), so that those of other processes on the machine never count.
"""

import gc
import os
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")


def snapshot():
    """Names of all that this process holds now: descriptors, mapped BPF and perf buffers, children, uprobe events."""
    gc.collect()
    held = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            held[f"fd {fd.name}"] = str(fd.readlink())
        except FileNotFoundError:
            continue  # the descriptor that listed the directory
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "anon_inode:" in line:
            span, *_, name = line.split(maxsplit=5)
            held[f"mapping {span}"] = name
    for pid in children(os.getpid()):
        held[f"child {pid}"] = Path(f"/proc/{pid}/comm").read_text().strip()
    events = TRACEFS / "uprobe_events"
    if events.exists():
        held.update({f"uprobe event {line}": "" for line in events.read_text().splitlines()})
    return held


def children(parent):
    """Pids of the children of a process, zombies among them."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat = (process / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # gone since the listing
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(process.name))
    return found


def new_since(before):
    """What is held now and was not, or not under this name, before: lines to print."""
    return sorted(f"{what} {name}".rstrip() for what, name in snapshot().items() if before.get(what) != name)
