"""Targets that change under the tracer, and numbers of everything beyond the usual: no crash, no leak, true counts."""

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

import pytest

from usdtkit import trace
from usdtkit.trace import cstr, deref


@pytest.fixture
def changing(compile_c, spawn, wait_for_line, tmp_path):
    """changing(path=None) -> tell(command, answer): a process of programs/changes.c; tell.pid, tell.path."""

    def start(path=None):
        path = path or compile_c("changes.c", "-O1", "-ldl")
        process = spawn([path])
        wait_for_line(process, "ready")

        def tell(command, answer):
            process.stdin.write(f"{command}\n")
            process.stdin.flush()
            wait_for_line(process, answer)

        tell.pid, tell.path, tell.process = process.pid, str(path), process
        return tell

    return start


def count_of(session):
    """An aggregation's only count."""
    return session.read()[()]


@pytest.mark.parametrize("by_pid", [False, True])
def test_a_target_that_forks(changing, by_pid):
    target = changing()
    with trace.Session(pid=target.pid if by_pid else None) as session:
        hits = session.uprobe(target.path, "step_in").count()
        session.start()
        target("call 97", "called 97")
        target("fork 997", "called 997")
        target("call 13", "called 13")
        # A child is another process, whose number nobody gave.
        assert count_of(hits) == 97 + 13 + (0 if by_pid else 997)


@pytest.mark.parametrize("by_pid", [False, True])
def test_a_target_that_becomes_another_program(changing, stepper, compile_c, by_pid):
    target = changing()
    with trace.Session(pid=target.pid if by_pid else None) as session:
        hits = session.uprobe(target.path, "step_in").count()
        session.start()
        target("call 97", "called 97")
        target(f"exec {compile_c('stepper.c', '-O2')}", "ready")
        target("997", "fired 997")
        target.process.stdin.close()
        assert target.process.wait(20) == 0
        if by_pid:
            assert list(session) == []  # it ends with the process, which exec does not end
        assert count_of(hits) == 97


def test_a_target_that_becomes_itself_again(changing):
    target = changing()
    with trace.Session(pid=target.pid) as session:
        hits = session.uprobe(target.path, "step_in").count()
        session.start()
        target("call 97", "called 97")
        target(f"exec {target.path}", "ready")
        target("call 997", "called 997")
        assert count_of(hits) == 97 + 997


def test_a_program_that_is_upgraded_on_disk(changing, compile_c, tmp_path):
    path = tmp_path / "service"
    shutil.copy(compile_c("changes.c", "-O1", "-ldl"), path)
    before = changing(path)
    with trace.Session() as session:
        hits = session.uprobe(str(path), "step_in").count()
        session.start()
        shutil.copy(path, tmp_path / "new")
        (tmp_path / "new").rename(path)
        after = changing(path)
        before("call 97", "called 97")
        after("call 997", "called 997")
        assert count_of(hits) == 97  # the old file, which the old process goes on with
    with trace.Session(pid=before.pid) as session:
        hits = session.uprobe(str(path), "step_in").count()
        session.start()
        before("call 13", "called 13")
        assert count_of(hits) == 13


def test_a_library_that_is_unloaded_and_loaded_again(changing, compile_c):
    target, library = changing(), compile_c("changes.c", "-DLIBRARY", "-shared", "-fPIC")
    with trace.Session(pid=target.pid) as session:
        target(f"open {library}", "opened")
        hits = session.uprobe(str(library), "tick").count()
        session.start()
        target("tick 97", "ticked 97")
        target("close", "closed")
        assert str(library) not in Path(f"/proc/{target.pid}/maps").read_text()
        target(f"open {library}", "opened")
        target("tick 997", "ticked 997")
        assert count_of(hits) == 97 + 997


def test_sixty_four_sessions_at_one_site(stepper):
    target = stepper()
    with contextlib.ExitStack() as stack:
        counts = []
        for _ in range(64):
            session = stack.enter_context(trace.Session(pid=target.pid, ring_size=1 << 16))
            source = session.usdt("step:plain")
            counts.append((session, source.count(), source.emit(n=trace.arg(1))))
            session.start()
        assert target.fire(997) == 0
        for session, hits, _ in counts:
            assert count_of(hits) == 997
            assert [event.n for event in session.drain()] == list(range(997))


def test_ten_thousand_sites(compile_c, ready):
    functions = "\n".join(f"NOINLINE long f{n}(long i) {{ return i * {n} + sum; }}" for n in range(10_000))
    calls = "\n".join(f"sum += f{n}({n});" for n in range(10_000))
    main = f"int main(void) {{ await_go(); {calls} return 0; }}"
    program = compile_c(f'#include "program.h"\nvolatile long sum;\n{functions}\n{main}\n', "-O0")
    target = ready([program])
    with trace.Session(pid=target.pid) as session:
        called = session.uprobe(str(program), "f[0-9]*").emit(n=trace.arg(1))
        session.start()
        assert len(session.plan()) == 10_000
        assert not session.refused
        target.communicate("\n", timeout=60)
        events = list(session)
        assert [event.n for event in events] == list(range(10_000))
        assert [event.probe for event in events] == [f"f{n}" for n in range(10_000)]
        assert session.summary().lost == 0
    assert called.arguments == ()


def test_strings_without_an_end_and_pointers_that_lead_nowhere(declare):
    probe = declare("own:hostile", pointer="u64")
    page = os.sysconf("SC_PAGESIZE")
    memory = ctypes.create_string_buffer(b"x" * (4 * page), 4 * page)  # no NUL in more than any string may have
    pointers = [0, 1, page - 1, 1 << 47, (1 << 64) - 1, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_8100_0000, 1 << 63]
    with trace.Session(pid=os.getpid()) as session:
        session.usdt("own:hostile").emit(text=cstr("pointer", 4096), number=deref("pointer"))
        session.start()
        for pointer in [ctypes.addressof(memory), *pointers]:
            probe(pointer)
        first, *others = session.drain()
        assert first.text == "x" * 4096
        assert [(event.text, event.number) for event in others] == [(None, 0)] * len(pointers)
        assert session.summary().unreadable >= len(pointers)
