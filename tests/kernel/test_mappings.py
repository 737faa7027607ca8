"""What processes map and do, as it happens, against what they did and /proc shows; and what they have mapped."""

import mmap
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from usdtkit.errors import UsdtkitError
from usdtkit.kernel import taskmaps
from usdtkit.kernel.taskmaps import TaskMappings
from usdtkit.mappings import (
    EVERY_MAPPING,
    EXEC,
    EXIT,
    FORK,
    MAPPED,
    NEW_FILE,
    PAGE,
    RING_PAGES,
    MappingStream,
    identities,
)
from usdtkit.maps import executable_mappings, mapping_at, mappings_in, maps_of
from usdtkit.processes import below, online_cpus, threads_of

KINDS = NEW_FILE | FORK | EXEC | EXIT

# Maps a page of each of the files NAME0, NAME1, … to execute, as often as it is told.
MAPS = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
  char name[4096];
  int files = atoi(argv[2]), times = atoi(argv[3]);
  for (int n = 0; n < files; n++) {
    snprintf(name, sizeof name, "%s%d", argv[1], n);
    int file = open(name, O_RDWR | O_CREAT, 0700);
    if (file < 0 || write(file, "\177ELF", 4) != 4) return 1;
    for (int m = 0; m < times; m++) if (mmap(0, 4096, PROT_EXEC, MAP_PRIVATE, file, 0) == MAP_FAILED) return 2;
    close(file);
  }
  puts("mapped");
  fflush(stdout);
  getchar();
}
"""


@pytest.fixture
def stream():
    """A stream of all kinds of news."""
    stream = MappingStream(KINDS)
    yield stream
    stream.close()


@pytest.fixture
def maps(compile_c, spawn, wait_for_line):
    """maps(name, files, times) -> a process that has mapped each of the files so often."""
    program = compile_c(MAPS)

    def run(name, files, times):
        process = spawn([program, name, str(files), str(times)])
        wait_for_line(process, "mapped")
        return process

    return run


def identity_of(path):
    with path.open("rb") as file:
        return identities([file.fileno()])[0]


def test_files_as_maps_shows_them(tmp_path):
    path = tmp_path / "with 08:01 997 in its name"
    path.write_bytes(bytes(3 * PAGE))
    with path.open("rb") as file, tempfile.TemporaryFile() as empty:
        found, nothing = identities([file.fileno(), empty.fileno()])
        assert nothing is None
        assert found.inode == os.fstat(file.fileno()).st_ino
        assert mappings_in(maps_of("self"), found) == []
        with mmap.mmap(file.fileno(), 2 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=PAGE):
            (mapping,) = mappings_in(maps_of("self"), found)
            assert mapping.end - mapping.start == 2 * PAGE
            assert (mapping.offset, mapping.permissions) == (PAGE, b"r--p")
            assert (mapping.is_executable, mapping.is_writable) == (False, False)
            assert mapping.address(PAGE) == mapping.start
            assert mapping.address(0) is mapping.address(3 * PAGE) is None
            assert mapping_at(maps_of("self"), mapping.end - 1) == mapping


def test_a_watched_program_that_starts(compile_c):
    path = compile_c("int main(void) { return 0; }")
    stream = MappingStream()
    try:
        stream.watch(identity_of(path))
        programs = [subprocess.Popen([path]) for _ in range(7)]
        assert [program.wait() for program in programs] == [0] * 7
        news = stream.take()
        assert sorted((each.pid, each.kind) for each in news) == sorted((program.pid, MAPPED) for program in programs)
        assert {each.name for each in news} == {str(path)}
        assert stream.take() == []
    finally:
        stream.close()


def test_a_file_is_new_once(stream, maps, tmp_path):
    name = f"{tmp_path}/of_many_bytes_"
    first, second = maps(name, 97, 3), maps(name, 98, 1)
    news = [each for each in stream.take() if each.kind & NEW_FILE and each.name.startswith(name)]
    assert [each.name for each in news] == [f"{name}{n}" for n in range(98)]
    assert [each.pid for each in news] == [first.pid] * 97 + [second.pid]
    assert (stream.lost, sorted(news, key=lambda each: each.time_ns)) == (0, news)
    shown = {(mapping.identity, mapping.name) for mapping in executable_mappings(maps_of(second.pid))}
    assert {(each.identity, each.name) for each in news} <= shown
    stream.forget(news[5])
    maps(name, 7, 1)
    assert [each.name for each in stream.take() if each.name.startswith(name)] == [f"{name}5"]
    stream.forget(news[6])
    stream.know(news[6].identity, news[6].generation)
    maps(name, 7, 1)
    assert not [each for each in stream.take() if each.name.startswith(name)]


def test_waiting_for_what_is_new(maps, tmp_path):
    """What is known ends no round, what is new does, and so does who waits no longer."""
    name, stop = f"{tmp_path}/waited_for_", os.eventfd(0)
    maps(name, 1, 1)
    stream = MappingStream()
    try:
        stream.watch(identity_of(Path(f"{name}0")))
        assert stream.wait(stop, 0.001, 7) == []
        one = maps(name, 1, 1)
        assert [each.pid for each in stream.wait(stop, 0.001, 1000)] == [one.pid]
        timer = threading.Timer(0.1, os.eventfd_write, (stop, 1))
        timer.start()
        assert stream.wait(stop, 0.01, 1 << 31) is None
        timer.join()
    finally:
        stream.close()
        os.close(stop)


STARTS = """
import subprocess, sys, threading
def start():
    sys.stdin.readline()
    subprocess.run(["sh", "-c", "true & wait"])
thread = threading.Thread(target=start)
print("ready", flush=True)
thread.start()
thread.join()
sys.stdin.readline()
"""


def test_a_child_that_starts_ends_a_pause(run_python, wait_for_line):
    """Also where a thread starts it that had started before, and where a child does."""
    parent = run_python(STARTS, stdin=subprocess.PIPE)
    wait_for_line(parent, "ready")
    while len(threads_of(parent.pid)) < 2:
        time.sleep(0.001)
    stop = os.eventfd(0)
    stream = MappingStream(FORK | EXIT)
    try:
        stream.follow(parent.pid)
        assert stream.wake_for([parent.pid])
        parent.stdin.write("go\n")
        parent.stdin.flush()
        seen, began = [], time.monotonic()
        while [each.kind for each in seen].count(EXIT) < 2:
            seen += stream.wait(stop, 20, 1)
        assert time.monotonic() - began < 15
        child, grandchild = [each for each in seen if each.kind == FORK]
        assert (child.parent, grandchild.parent) == (parent.pid, child.pid)
    finally:
        stream.close()
        os.close(stop)


def test_processes_that_start_and_end(stream):
    programs = [subprocess.Popen(["sh", "-c", "exec env true"]) for _ in range(13)]
    assert [program.wait() for program in programs] == [0] * 13
    news = stream.take()
    for program in programs:
        own = [each for each in news if each.pid == program.pid and each.kind & (FORK | EXEC | EXIT)]
        assert [each.kind for each in own] == [FORK, EXEC, EXEC, EXEC, EXIT]
        assert own[0].parent == os.getpid()
        assert [each.name for each in own[1:4]] == ["sh", "env", "true"]


def test_what_did_not_fit_is_said_once(stream, maps, tmp_path):
    name = f"{tmp_path}/too_many_"
    # Each record has a header of 8 bytes, the place of 32, the file of 24, 8 more, the name, and a trailer of 16.
    most = len(online_cpus()) * RING_PAGES * PAGE // (88 + len(name))
    maps(name, 1, 3 * most)
    news = stream.take()
    assert [each.name for each in news if each.kind & NEW_FILE and each.name.startswith(name)] == [f"{name}0"]
    assert stream.lost >= 2 * most
    # With the next records that fit, the kernel tells of the loss once more.
    cpus = os.sched_getaffinity(0)
    try:
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            maps(f"{tmp_path}/then_{cpu}_", 1, 1)
    finally:
        os.sched_setaffinity(0, cpus)
    assert {each.name for each in stream.take()} >= {f"{tmp_path}/then_{cpu}_0" for cpu in cpus}
    assert stream.lost == 0


def test_the_kernels_own_lists_are_those_of_proc(maps, tmp_path):
    process = maps(f"{tmp_path}/own_", 17, 1)
    mappings = TaskMappings()
    try:
        own = list(mappings.of(process.pid))
        shown = [each for each in executable_mappings(maps_of(process.pid)) if each.identity.inode]
        assert {each.pid for each in own} == {process.pid}
        # The kernel shows one device and inode number in both, where no file system is stacked on another.
        assert [((each.major, each.minor, each.inode), each.start, each.end, each.offset) for each in own] == [
            (each.identity, each.start, each.end, each.offset) for each in shown
        ]
        assert set(own) <= set(mappings.of())
    finally:
        mappings.close()


def test_each_file_is_fresh_once(maps, tmp_path):
    mappings = TaskMappings()
    try:
        first = list(mappings.fresh())
        assert len({each.key for each in first}) == len(first) > 0
        assert Path("/proc/self/exe").stat().st_ino in {each.inode for each in first}
        process = maps(f"{tmp_path}/fresh_", 31, 2)
        inodes = {path.stat().st_ino for path in tmp_path.iterdir()}
        again = [each for each in mappings.fresh() if each.pid == process.pid and each.inode in inodes]
        assert {each.inode for each in again} == inodes
        assert len(again) == 31
        assert not {each.inode for each in mappings.fresh()} & inodes
    finally:
        mappings.close()


WAITS = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) {
  int child = fork();
  if (!child) {
    puts("runs");
    fflush(stdout);
  }
  pause();
}
"""


def test_a_model_of_the_stream_is_what_proc_shows(compile_c, spawn, wait_for_line):
    """First the stream begins, then the kernel's lists are read, then the news is applied, as a tracer does."""
    stream, mappings = MappingStream(EVERY_MAPPING | FORK | EXEC | EXIT), TaskMappings()
    try:
        model = {}
        for each in mappings.of():
            model.setdefault(each.pid, set()).add((each.major, each.minor, each.inode))
        processes = [spawn([compile_c(WAITS)]) for _ in range(17)]
        for process in processes:
            wait_for_line(process, "runs")
        for each in stream.take():
            if each.kind & FORK:
                model[each.pid] = set(model.get(each.parent, ()))
            elif each.kind & EXEC:
                model[each.pid] = set()
            elif each.kind & EXIT:
                model.pop(each.pid, None)
            else:
                model.setdefault(each.pid, set()).add(each.identity)
        assert stream.lost == 0
        everybody = [process.pid for process in processes]
        everybody += [child for pid in everybody for child in below(pid)]
        assert len(everybody) == 2 * 17
        for pid in (os.getpid(), *everybody):
            shown = {each.identity for each in executable_mappings(maps_of(pid)) if each.identity.inode}
            assert model[pid] == shown or pid == os.getpid()
            assert model[pid] >= shown
    finally:
        stream.close()
        mappings.close()


@pytest.mark.parametrize("content", [None, b"", b"\x9f\xeb\x01\x00" + bytes(60), os.urandom(997)])
def test_without_the_kernels_types(content, monkeypatch, tmp_path):
    path = tmp_path / "btf"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(taskmaps, "BTF", str(path))
    monkeypatch.setattr(taskmaps, "_known", {})
    with pytest.raises(UsdtkitError, match=r"btf|no func"):
        TaskMappings()
