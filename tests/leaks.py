"""Checks that a kernel test leaves nothing behind: two snapshots of what this process holds, and the difference in
words.

Read by the `nothing_leaks` fixture in conftest.py. BPF programs, maps, links and perf events are file descriptors (or
mappings of one), so that those of other processes on the machine never count.
"""

import contextlib
import ctypes
import gc
import os
import re
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")
SYS_BPF = 321
# bpf(2): the command that opens an object by its id, by what /proc/PID/fdinfo calls the id.
GET_BY_ID = {"prog_id": 13, "map_id": 14, "link_id": 30}


def snapshot():
    """Names of all that this process holds now: descriptors, mapped BPF and perf buffers, children."""
    gc.collect()
    held = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            held[f"fd {fd.name}"] = str(fd.readlink())
        except FileNotFoundError:
            continue  # the descriptor that listed the directory
    # The kernel passes on the names of files and threads as they are, and these may hold any bytes.
    for line in Path("/proc/self/maps").read_text(errors="surrogateescape").split("\n"):
        if "anon_inode:" in line:
            span, *_, name = line.split(maxsplit=5)
            held[f"mapping {span}"] = name
    for pid in children(os.getpid()):
        held[f"child {pid}"] = Path(f"/proc/{pid}/comm").read_text(errors="backslashreplace").strip()
    return held


def uprobe_events(run):
    """Those of the whole machine, of the programs that tests compare with, but not those of other runs of tests.

    `run` is the directory of this run's temporary files, which lies beside those of other runs.
    """
    events = TRACEFS / "uprobe_events"
    # Events of other tracers are listed as well, and the paths in them may hold any bytes.
    lines = events.read_text(errors="backslashreplace").splitlines() if events.exists() else []
    others, own = f" {run.parent}/", f" {run}/"
    return {f"uprobe event {line}" for line in lines if own in line or others not in line}


def children(parent):
    """Pids of the children of a process, zombies among them."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                stat = (process / "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # gone since the listing
            if int(stat.rpartition(b")")[2].split()[1]) == parent:
                found.append(int(process.name))
    return found


def new_since(before):
    """Everything that is held now and was not held before, or not under this name: lines to print."""
    return sorted(f"{what} {name}".rstrip() for what, name in snapshot().items() if before.get(what) != name)


def bpf_objects(pid):
    """The programs, maps and links that a process holds now, as (kind of id, id)."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = info.read_text()
                found |= {(kind, int(id)) for kind, id in re.findall(r"^(prog_id|map_id|link_id):\s+(\d+)", text, re.M)}
    return found


def exists(kind, id):
    """Whether the kernel still has the object; a descriptor that is opened to find out is closed again."""
    attributes = ctypes.create_string_buffer(id.to_bytes(4, "little"), 128)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, GET_BY_ID[kind], attributes, 128)
    if descriptor < 0:
        assert ctypes.get_errno() == 2  # ENOENT
        return False
    os.close(descriptor)
    return True
