"""What is checked is what is used: files that are swapped, rewritten, unmounted, or shown by overlays meanwhile."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from conftest import Stepper
from processes import among_own_mounts, byte_in_memory

from usdtkit import targets, trace
from usdtkit.errors import NotFoundError, UnsupportedError
from usdtkit.kernel.attach.links import METHODS
from usdtkit.kernel.attach.sites import REWRITTEN

PROGRAM = "stepper.c"
SPECS = ("step:plain", "step:guarded", "work")


def both(session, path):
    """Sources of a stepper's probes and of its function."""
    session.usdt("step:*", path).emit("pid")
    session.uprobe(path, "work").emit("pid")


def counted(session):
    return Counter((event.probe, event.pid) for event in session.drain())


def each(target, times):
    return {(spec, target.pid): times for spec in SPECS}


def into(pid):
    """Options of nsenter: the mounts of a process, and its root among them, which in a chroot is another."""
    return f"--mount=/proc/{pid}/ns/mnt", f"--root=/proc/{pid}/root"


@pytest.fixture
def copy(compile_c, tmp_path):
    return Path(shutil.copy(compile_c(PROGRAM, "-O2"), tmp_path / "copy"))


@pytest.fixture
def inside(spawn, wait_for_line, tmp_path):
    """inside(script) -> a mount namespace in which a script has run, below tmp_path: inside(path) starts a stepper."""

    def enter(script, *arguments):
        holder = spawn(
            [*among_own_mounts(f"cd {tmp_path}\n{script}\necho ready\nexec cat"), "sh", *map(str, arguments)]
        )
        wait_for_line(holder, "ready")

        def start(path):
            return Stepper(spawn(["nsenter", *into(holder.pid), str(path)]), path, wait_for_line)

        start.pid = holder.pid
        return start

    return enter


OVERLAYS = """
mkdir -p lower merged1 merged2
cp "$1" lower/program
for n in 1 2; do
    mkdir -p upper$n work$n
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper$n,workdir=work$n merged$n
done
"""


# A stranger's provider file, whose offsets and semaphore lie in the midst of what the program does.
STRANGER = r"""
__asm__(".pushsection .note.stapsdt,\"?\",\"note\"\n.balign 4\n.4byte 992f-991f,994f-993f,3\n991: .asciz \"stapsdt\"\n"
        "992: .balign 4\n993: .8byte site+3\n.8byte 0\n.8byte counter\n.asciz \"shop2\"\n.asciz \"order__start\"\n"
        ".asciz \"8@%rdi\"\n994: .balign 4\n.popsection\n");
unsigned short counter __attribute__((section(".data"))) = 7;
__attribute__((noinline)) int site(int x) { __asm__ volatile("" : "+r"(x)); return x + 0x11223344; }
int main(void) { return site(1) == 0; }
"""


def test_a_file_that_is_swapped_while_a_trace_starts(compile_c, tmp_path, spawn, wait_for_line):
    """As quick an attacker as can be: he swaps between the look at his file and the attachment, 200 times."""
    victim = Stepper(spawn([compile_c(PROGRAM, "-O2")]), compile_c(PROGRAM, "-O2"), wait_for_line)
    theirs = tmp_path / "shop2-0123456789abcdef.so"
    for _ in range(200):
        theirs.unlink(missing_ok=True)
        shutil.copy(compile_c(STRANGER), theirs)
        with trace.Session() as session:
            source = session.usdt("shop2:order__start", theirs)
            (place,) = source.resolved.places
            original = byte_in_memory(victim.pid, victim.path, place.file_offset)
            source.count()
            (tmp_path / "other").symlink_to(victim.path)
            (tmp_path / "other").rename(theirs)
            session.start()
            assert byte_in_memory(victim.pid, victim.path, place.file_offset) == original
    assert victim.fire(97) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_file_that_is_written_to_while_a_trace_starts(method, copy):
    content = copy.read_bytes()
    with trace.Session(method=method) as session:
        session.usdt("step:*", copy).count()
        with copy.open("r+b") as file:
            file.write(content[:64])
        with pytest.raises(UnsupportedError, match=REWRITTEN) as caught:
            session.start()
    assert "start the trace again" in caught.value.hint
    # A new mode or name is no new content.
    with trace.Session(method=method) as session:
        session.usdt("step:*", copy).count()
        copy.chmod(0o700)
        copy.rename(copy.with_name("renamed"))
        session.start()
        assert session.refused == []


@pytest.mark.parametrize("method", METHODS)
def test_what_is_written_to_after_it_was_attached_to_is_let_go(method, copy, stepper, monkeypatch):
    """Written in the last moment, between the first site and the second look."""
    from usdtkit.kernel.attach import links, uprobe_multi

    target, content, attach = stepper(), copy.read_bytes(), uprobe_multi._by_suspicion

    def late(file, sites):
        if file.path == str(copy):
            with copy.open("r+b") as opened:
                opened.write(content[:64])
        return attach(file, sites)

    with trace.Session(method="perf_link" if method == "perf_ioctl" else method) as session:
        session.usdt("step:plain", copy).emit("pid")
        session.usdt("step:plain", target.path).emit("pid")
        monkeypatch.setattr(uprobe_multi, "_by_suspicion", late)
        monkeypatch.setattr(links, "leave_mount", lambda file: late(file, ()) and None)
        session.start()
        assert {(one.path, one.reason) for one in session.refused} == {(str(copy), REWRITTEN)}
        target.fire(97)
        assert counted(session) == {("step:plain", target.pid): 97}


@pytest.mark.parametrize("method", METHODS)
def test_a_mount_can_be_unmounted_while_a_file_on_it_is_traced(method, compile_c, tmp_path, spawn, wait_for_line):
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "traced", mount], check=True)
    try:
        program = shutil.copy(compile_c(PROGRAM, "-O2"), mount / "program")
        target = Stepper(spawn([program]), program, wait_for_line)
        with trace.Session(method=method) as session:
            both(session, program)
            session.start()
            target.fire(997)
            assert counted(session) == each(target, 997)
            target.finish()
            subprocess.run(["umount", mount], check=True)
            assert not os.path.ismount(mount)
    finally:
        if os.path.ismount(mount):
            subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_memory_only(method, compile_c, spawn, wait_for_line):
    descriptor = os.memfd_create("program")
    os.write(descriptor, compile_c(PROGRAM, "-O2").read_bytes())
    process = spawn([f"/proc/self/fd/{descriptor}"], pass_fds=[descriptor])
    os.close(descriptor)
    target = Stepper(process, "memfd", wait_for_line)
    with trace.Session(pid=target.pid, method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe("memfd:program", "work").emit("pid")
        session.start()
        assert target.fire(997) == 997
        assert counted(session) == each(target, 997)


@pytest.mark.parametrize("method", METHODS)
def test_of_several_processes_one_ends_before_it_is_attached_to(method, stepper, caplog):
    left, gone = stepper(), stepper()
    with trace.Session(pid=[gone.pid, left.pid], method=method) as session:
        both(session, left.path)
        gone.finish()
        session.start()
        left.fire(997)
        assert counted(session) == each(left, 997)
        assert f"left out: process {gone.pid} ended" in caplog.text
    with trace.Session(pid=left.pid, method=method) as session:
        both(session, left.path)
        left.finish()
        with pytest.raises(NotFoundError, match="ended before it could be traced"):
            session.start()


@pytest.mark.parametrize("by_pid", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_two_overlays_over_one_file_count_once(method, by_pid, inside, compile_c, tmp_path):
    start = inside(OVERLAYS, compile_c(PROGRAM, "-O2"))
    one, two = (start(tmp_path / f"merged{n}/program") for n in (1, 2))
    with trace.Session(pid=[one.pid, two.pid] if by_pid else None, method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe("program" if by_pid else f"/proc/{one.pid}/root{two.path}", "work").emit("pid")
        session.start()
        assert (one.fire(997), two.fire(499)) == (997, 499)
        assert counted(session) == each(one, 997) | each(two, 499)
        assert session.summary().lost == 0


def test_a_look_over_processes_finds_a_file_of_two_overlays_once(inside, compile_c, tmp_path):
    start = inside(OVERLAYS, compile_c(PROGRAM, "-O2"))
    one, two = (start(tmp_path / f"merged{n}/program") for n in (1, 2))
    (found,) = [target for target in targets.all_mapped() if one.pid in target.pids and "program" in target.name]
    assert found.pids == (one.pid, two.pid)
    lower = (tmp_path / "lower/program").stat()
    assert found.key == (lower.st_dev, lower.st_ino)
    # The process by which it was reached ends: it is still opened, as the other has it mapped.
    one.finish()
    assert {file.key for file in targets.open_target(found)} == {found.key}
    two.finish()
    with pytest.raises(NotFoundError, match="no process maps it any more"):
        targets.open_target(found)


@pytest.mark.parametrize("change", ['touch "$0"', 'chmod 700 "$0"'])
@pytest.mark.parametrize("method", METHODS)
def test_a_file_of_an_overlay_that_was_copied_up(method, change, inside, compile_c, tmp_path):
    """What was started before runs the file below, what is started after the copy; both are traced."""
    start = inside(OVERLAYS, compile_c(PROGRAM, "-O2"))
    before, other = start(tmp_path / "merged1/program"), start(tmp_path / "merged2/program")
    command = ["nsenter", *into(start.pid), "sh", "-c", change, before.path]
    subprocess.run(command, check=True)
    after = start(tmp_path / "merged1/program")
    with trace.Session(pid=[before.pid, after.pid], method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe("program", "work").emit("pid")
        session.start()
        assert (before.fire(997), after.fire(499)) == (997, 499)
        assert counted(session) == each(before, 997) | each(after, 499)
    with trace.Session(method=method) as session:
        session.usdt("step:*").emit("pid")
        session.uprobe(f"/proc/{start.pid}/root{before.path}", "work").emit("pid")
        session.start()
        fired = [target.fire(97) for target in (before, after, other)]
        assert fired == [97, 97, 97]
        assert counted(session) == each(before, 97) | each(after, 97) | each(other, 97)
