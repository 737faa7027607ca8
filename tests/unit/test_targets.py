import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from elffiles import ProbeSpec, note, usdt_file
from processes import among_own_mounts

from usdtkit import processes, scan, targets
from usdtkit.errors import ElfError, NotFoundError, PrivilegeError, UnsupportedError, UsageError
from usdtkit.probes.image import build
from usdtkit.trace.returns import Returns
from usdtkit.trace.specs import uprobe

pytestmark = pytest.mark.machine

WAITS = """
#include <stdio.h>
#include <sys/sdt.h>
int waits_here(void) { return getchar(); }
int main(void)
{
    puts("ready");
    fflush(stdout);
    DTRACE_PROBE1(waits, start, 997);
    return waits_here() == 0;
}
"""
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter another root directory")


@pytest.fixture
def waiting(compile_c, spawn, wait_for_line):
    """waiting(**popen) -> a process that maps our own program and waits."""

    def start(path=None, *flags, **popen):
        process = spawn([path or compile_c(WAITS, *flags)], **popen)
        wait_for_line(process, "ready")
        return process

    return start


@contextmanager
def nobody():
    """Be a user without privilege, where the tests run as root."""
    os.seteuid(65534 if os.geteuid() == 0 else os.geteuid())
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.fixture
def provider_file(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    probes = [
        ProbeSpec("order__start", "An order.", (("order_id", "u64"), ("customer", "str"))),
        ProbeSpec("order__done", "", ()),
    ]
    path = tmp_path / "shop997-abc.so"
    path.write_bytes(build("shop997", probes))
    (tmp_path / "not-elf.so").write_text("text")
    return str(path)


def paths(found):
    return [target.path for target in found]


def test_a_path_a_command_and_a_library_without_pid(compile_c):
    program = str(compile_c(WAITS))
    assert paths(targets.resolve(program)) == [program]
    assert paths(targets.resolve("sh")) == [shutil.which("sh")]
    for name in ("stdc++", "libstdc++.so.6"):
        (found,) = targets.resolve(name)
        assert os.path.realpath(found.path).startswith("/usr/lib/x86_64-linux-gnu/libstdc++.so.6.")
    assert "/lib/x86_64-linux-gnu/libc.so.6" in paths(targets.resolve("c"))


@pytest.mark.parametrize("name", ["no-such-thing", "./no-such-thing", "/no/such/thing", ""])
def test_a_name_of_nothing(name):
    with pytest.raises(NotFoundError) as caught:
        targets.resolve(name)
    assert caught.value.exit_code == 4


def test_a_bare_name_of_a_file_here_is_hinted_at(tmp_path, monkeypatch):
    (tmp_path / "mine").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        targets.resolve("mine")
    assert caught.value.hint.startswith("./mine ")


def test_the_files_of_a_process(waiting, compile_c):
    program, process = str(compile_c(WAITS)), waiting()
    found = targets.mapped_files(process.pid)
    names = [target.name for target in found]
    assert names.count(program) == 1
    assert {target.pids for target in found} == {(process.pid,)}
    assert all(Path(target.path).samefile(target.name) for target in found)
    assert len(found) == 3  # the program, the C library and the loader


def test_names_within_a_process(waiting, compile_c, tmp_path):
    program, process = str(compile_c(WAITS)), waiting()
    pids = [process.pid]
    (tmp_path / "link").symlink_to(program)
    for name in (program, Path(program).name, str(tmp_path / "link")):
        assert paths(targets.resolve(name, pids)) == [program]
    for name in ("c", "libc.so.6"):
        assert [Path(path).name for path in paths(targets.resolve(name, pids))] == ["libc.so.6"]
    with pytest.raises(NotFoundError, match=r"near: libc\.so\.6") as caught:
        targets.resolve("libcc.so.6", pids)
    assert f"-p {process.pid}" in caught.value.hint


def test_one_file_of_two_processes_is_one_target(waiting):
    pids = (waiting().pid, waiting().pid)
    (found,) = targets.resolve("c", pids)
    assert found.pids == pids
    mine = [target for target in targets.all_mapped() if set(pids) <= set(target.pids)]
    assert len(mine) == 3


@AS_ROOT
def test_a_deleted_file_is_still_found(waiting, compile_c, tmp_path):
    program = tmp_path / "deleted"
    shutil.copy(compile_c(WAITS), program)
    process = waiting(program)
    program.unlink()
    program.write_text("another file of that name")
    (found,) = targets.resolve("deleted", [process.pid])
    assert found.name == f"{program} (deleted)"
    (probe,) = targets.find_probes("waits:start", pids=[process.pid])
    assert probe.path.startswith(f"/proc/{process.pid}/map_files/")
    (function,) = targets.find_functions("deleted", ["waits_here"], pids=[process.pid])
    assert Path(function.path).read_bytes()[:4] == b"\x7fELF"


@AS_ROOT
def test_a_file_in_another_root_directory(waiting, compile_c, tmp_path):
    shutil.copy(compile_c(WAITS, "-static"), tmp_path / "inside")
    process = waiting("/inside", preexec_fn=lambda: os.chroot(tmp_path), cwd="/")
    (found,) = targets.resolve("/inside", [process.pid])
    assert found == targets.Target(str(tmp_path / "inside"), "/inside", (process.pid,))


@AS_ROOT
def test_a_file_that_only_the_mounts_of_a_process_show(spawn, wait_for_line, compile_c, tmp_path):
    inside = tmp_path / "inside"
    script = f"mount -t tmpfs inside {tmp_path} && cp {compile_c(WAITS)} {inside} && exec {inside}"
    process = spawn(among_own_mounts(script))
    wait_for_line(process, "ready")
    assert not inside.exists()
    (found,) = targets.resolve(str(inside), [process.pid])
    assert (found.name, found.pids) == (str(inside), (process.pid,))
    assert Path(found.path).read_bytes() == compile_c(WAITS).read_bytes()
    (probe,) = targets.find_probes("waits:*", pids=[process.pid])
    assert probe.path == found.path


def test_old_names_of_the_c_library_in_a_container(waiting, compile_c, tmp_path):
    library = tmp_path / "libc-2.31.so"
    library.write_bytes(compile_c("int waits_here(void) { return 0; }", "-shared", "-fPIC").read_bytes())
    code = f"import ctypes; ctypes.CDLL({str(library)!r}); print('ready', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        found = targets.resolve("c", [process.pid])
        assert {Path(path).name for path in paths(found)} == {"libc.so.6", "libc-2.31.so"}
        assert paths(found)[1:] or paths(targets.resolve("libc.so.6", [process.pid]))
    finally:
        process.communicate()


def test_no_such_process():
    for look in (
        lambda: targets.mapped_files(2**22 + 1),
        lambda: targets.find_probes("a:b", pids=[2**22 + 1]),
        lambda: targets.resolve("c", [2**22 + 1]),
    ):
        with pytest.raises(NotFoundError, match="no process 4194305") as caught:
            look()
        assert caught.value.hint


def test_a_process_that_may_not_be_looked_into(waiting, caplog):
    process = waiting()
    with nobody(), pytest.raises(PrivilegeError, match=str(process.pid)):
        targets.mapped_files(1 if os.getuid() else process.pid)
    with nobody():
        targets.all_mapped()
    (record,) = caplog.records
    assert "may not be inspected" in record.getMessage()


def test_a_process_that_ends_during_the_scan_costs_nothing(waiting, monkeypatch, caplog):
    alive = waiting().pid
    monkeypatch.setattr(scan, "running_pids", lambda: [2**22 + 1, alive])
    assert {target.pids for target in targets.all_mapped()} == {(alive,)}
    assert caplog.records == []


def test_probes_of_a_provider_file_before_its_service_runs(provider_file):
    (probe,) = targets.find_probes("shop997:order__start")
    assert (probe.path, [argument.name for argument in probe.arguments]) == (provider_file, ["order_id", "customer"])
    assert len(targets.find_probes("shop99?:*")) == 2


def test_probes_of_whatever_runs(waiting, compile_c):
    process = waiting()
    (probe,) = targets.find_probes("waits:start")
    assert probe.path == str(compile_c(WAITS))
    assert targets.find_probes("*:start", pids=[process.pid]) == [probe]
    assert targets.find_probes("waits:start", path=probe.path) == [probe]


def test_near_names_of_probes(provider_file):
    with pytest.raises(NotFoundError, match="near: shop997:order__start") as caught:
        targets.find_probes("shop997:order_start", path=provider_file)
    assert caught.value.hint == f"usdtkit list {provider_file} shows all"


def test_no_probes_at_all(compile_c):
    program = str(compile_c("int main(void) { return 0; }"))
    with pytest.raises(NotFoundError, match="there are no USDT probes") as caught:
        targets.find_probes("a:b", path=program)
    assert caught.value.exit_code == 4
    with pytest.raises(ElfError, match="not an ELF file"):
        targets.find_probes("a:b", path=__file__)


@pytest.mark.parametrize("spec", ["", "shop", ":", "shop:", ":order", "u:shop:order"])
def test_a_spec_that_is_none(spec):
    with pytest.raises(UsageError):
        targets.find_probes(spec)


def test_a_damaged_file_does_not_end_a_search(provider_file, caplog):
    damaged = Path(provider_file).with_name("damaged.so")
    data = usdt_file(lambda layout: note(layout, "bad", "note"))
    damaged.write_bytes(data.replace(b"\x08\0\0\0", b"\x08\xff\xff\xff", 1)[: len(data) - 100])
    assert len(targets.find_probes("shop997:*")) == 2
    assert any(str(damaged) in record.getMessage() for record in caplog.records)


def test_functions_by_name_and_glob(compile_c, waiting):
    program, process = str(compile_c(WAITS)), waiting()
    (function,) = targets.find_functions(program, ["waits_here", "no_such"])
    assert function.path == program
    assert targets.find_functions(Path(program).name, ["waits_*"], pids=[process.pid]) == [function]
    libc = targets.find_functions("c", ["getaddrinfo", "gethostbyname*"], pids=[process.pid])
    assert {"getaddrinfo", "gethostbyname", "gethostbyname2_r"} <= {function.name for function in libc}


def test_functions_that_are_not_there(compile_c, waiting):
    pids = [waiting().pid]
    with pytest.raises(NotFoundError, match="near: getaddrinfo"):
        targets.find_functions("c", ["getadrinfo"], pids=pids)
    with pytest.raises(NotFoundError, match=r"strlen in .* is an indirect function"):
        targets.find_functions("c", ["strlen"], pids=pids)
    with pytest.raises(NotFoundError, match="no function symbols"):
        targets.find_functions(str(compile_c("int main(void) { return 0; }", "-static", "-s")), ["main"])


def test_a_directory_and_a_glob_of_paths(tmp_path, compile_c):
    (tmp_path / "below").mkdir()
    for name in ("one", "below/two"):
        shutil.copy(compile_c(WAITS), tmp_path / name)
    (tmp_path / "text").write_text("no ELF file")
    names = [str(tmp_path / name) for name in ("one", "below/two")]
    assert paths(targets.resolve(str(tmp_path))) == names
    assert paths(targets.resolve(f"{tmp_path}/*/t*")) == names[1:]
    assert [probe.path for probe in targets.find_probes("waits:*", path=str(tmp_path))] == names
    assert [function.path for function in targets.find_functions(str(tmp_path), ["waits_here"])] == names
    with pytest.raises(NotFoundError, match="no ELF file below"):
        targets.resolve("/proc")
    with pytest.raises(NotFoundError, match="no such file"):
        targets.resolve(f"{tmp_path}/*.none")


def test_one_damaged_file_of_a_directory_costs_a_warning(tmp_path, compile_c, caplog):
    shutil.copy(compile_c(WAITS), tmp_path / "good")
    (tmp_path / "damaged").write_bytes(b"\x7fELF\x02\x01" + bytes(100) + b"\xff" * 100)
    (tmp_path / "cut").write_bytes(compile_c(WAITS).read_bytes()[:997])
    assert [probe.spec for probe in targets.find_probes("*:*", path=str(tmp_path))] == ["waits:start"]
    assert len(targets.find_functions(str(tmp_path), ["waits_here"])) == 1
    assert any("cut" in record.getMessage() for record in caplog.records)


def test_a_program_that_runs_by_its_name(waiting, compile_c, tmp_path):
    shutil.copy(compile_c(WAITS), tmp_path / "waits-997")
    process = waiting(tmp_path / "waits-997")
    (found,) = targets.resolve("waits-997")
    assert found == targets.Target(str(tmp_path / "waits-997"), str(tmp_path / "waits-997"), (process.pid,))
    assert processes.named("waits-997") == [process.pid]


def test_processes_by_what_people_call_them(spawn, wait_for_line, compile_c, tmp_path):
    program, script = tmp_path / "waits-991", tmp_path / "shop-991.py"
    shutil.copy(compile_c(WAITS), program)
    script.write_text("print('ready', flush=True); input()")
    rename = "open('/proc/self/comm', 'w').write('waits-comm'); print('ready', flush=True); input()"
    commands = ([program], [program], [sys.executable, script], [sys.executable, "-c", rename])
    first, second, python, renamed = map(spawn, commands)
    for process in (first, second, python, renamed):
        wait_for_line(process, "ready")
    pids = sorted([first.pid, second.pid])
    assert targets.processes_of("waits-991") == targets.processes_of(str(program)) == pids
    assert targets.processes_of("shop-991.py") == [python.pid]
    assert targets.processes_of("waits-comm") == [renamed.pid]
    assert os.getpid() not in targets.processes_of(Path(sys.executable).resolve().name)
    assert targets.processes_of(997) == targets.processes_of("997") == [997]
    with pytest.raises(NotFoundError, match="no process runs a program 'waits-919'; near: waits-991"):
        targets.processes_of("waits-919")
    with pytest.raises(UsageError):
        targets.processes_of("0")
    for nothing in ("", "\0", "/", "*"):
        with pytest.raises(NotFoundError):
            targets.processes_of(nothing)


@AS_ROOT
def test_both_numbers_of_a_process_in_a_pid_namespace(spawn, wait_for_line, compile_c):
    program = compile_c(WAITS)
    spawned = spawn(["unshare", "--pid", "--fork", "--kill-child", str(program)])
    wait_for_line(spawned, "ready")
    (pid,) = processes.named(program.name)
    assert processes.numbers(pid) == (pid, 1)
    assert processes.numbers(os.getpid())[0] == os.getpid()
    assert processes.numbers(2**22 + 1) == ()


@AS_ROOT
@pytest.mark.parametrize("change", ["", "replaced", "written"])
def test_a_file_of_an_overlay(spawn, wait_for_line, compile_c, tmp_path, change):
    """As in a container: mounted from layers, and there perhaps replaced by another of that name."""
    program = tmp_path / "merged/program"
    layers = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    # overlays do not lie on overlays, which the temporary directory may be on
    script = f"mount -t tmpfs layers {tmp_path} && cd {tmp_path} && mkdir lower upper work merged && "
    script += f"cp {compile_c(WAITS)} lower/program && mount -t overlay overlay -o {layers} merged && exec {program}"
    process = spawn(among_own_mounts(script))
    wait_for_line(process, "ready")
    inside = Path(f"/proc/{process.pid}/root{program}")
    if change == "replaced":
        inside.unlink()
        inside.write_text("another file of that name")
    elif change == "written":
        inside.chmod(0o700)
    found = [target for target in targets.mapped_files(process.pid) if "program" in target.name]
    assert len(found) == 1
    assert found[0].name.removesuffix(" (deleted)") == str(program)
    (probe,) = targets.find_probes("waits:start", pids=[process.pid])
    assert probe.path == found[0].path
    assert Path(probe.path).read_bytes() == compile_c(WAITS).read_bytes()
    assert len(targets.find_functions("program", ["waits_here"], pids=[process.pid])) == 1


@AS_ROOT
def test_a_file_that_is_replaced_after_the_look(waiting, compile_c, tmp_path):
    """What was found is opened, as a process has it mapped, and not what is at its path by then."""
    program = tmp_path / "program"
    shutil.copy(compile_c(WAITS), program)
    process, other = waiting(program), waiting(program)
    (found,) = targets.resolve("program", [process.pid, other.pid])
    inode = program.stat().st_ino
    shutil.copy(sys.executable, tmp_path / "new")
    (tmp_path / "new").rename(program)
    for ended in (process, other):
        (file,) = targets.open_target(found)
        assert (file.key[1], file.path) == (inode, str(program))
        assert [probe.spec for probe in targets.probes_in(found)] == ["waits:start"]
        assert len(targets.functions_in(found, "waits_here")) == 1
        ended.communicate("\n")
    with pytest.raises(NotFoundError, match="no process maps it any more"):
        targets.open_target(found)
    assert targets.probes_of([found]) == []


@AS_ROOT
def test_a_file_that_is_replaced_and_out_of_reach(waiting, compile_c, tmp_path, caplog):
    program = tmp_path / "program"
    shutil.copy(compile_c(WAITS), program)
    (found,) = targets.resolve("program", [waiting(program).pid])
    shutil.copy(sys.executable, tmp_path / "new")
    (tmp_path / "new").rename(program)
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o755)
    with nobody():
        with pytest.raises(PrivilegeError, match="was replaced"):
            targets.open_target(found)
        assert targets.probes_of([found]) == []
    assert "left out: " in caplog.text


def test_of_several_processes_one_may_have_ended(waiting, caplog):
    left, gone = waiting(), waiting()
    gone.communicate("\n")
    found = targets.resolve("c", [gone.pid, left.pid])
    assert [target.pids for target in found] == [(left.pid,)]
    assert f"left out: no process {gone.pid}" in caplog.text


@AS_ROOT
def test_a_file_without_a_name(spawn, wait_for_line, compile_c):
    """A memfd, whose descriptor the process has closed."""
    library = compile_c(
        "#include <sys/sdt.h>\nint unnamed_here(void) { DTRACE_PROBE(unnamed, hit); return 0; }", "-shared", "-fPIC"
    )
    code = f"""
import ctypes, os
memory = os.memfd_create("shop")
os.write(memory, open({str(library)!r}, "rb").read())
ctypes.CDLL(f"/proc/self/fd/{{memory}}")
os.close(memory)
print("ready", flush=True)
input()
"""
    process = spawn([sys.executable, "-c", code])
    wait_for_line(process, "ready")
    (probe,) = targets.find_probes("unnamed:hit", pids=[process.pid])
    assert probe.path.startswith(f"/proc/{process.pid}/map_files/")
    (found,) = [target for target in targets.mapped_files(process.pid) if target.path == probe.path]
    assert found.name.startswith("/memfd:shop")
    assert targets.find_probes("unnamed:hit") == [probe]


def test_a_return_probe_in_a_go_program_is_refused(compile_c):
    go = compile_c('__attribute__((section(".go.buildinfo"), used)) char info[16]; int main(void) { return 0; }')
    main = uprobe(str(go), "main").resolve(())
    assert len(main.places) == 1
    with pytest.raises(UnsupportedError, match="is a Go program") as caught:
        Returns("probes", ()).of(main)
    assert caught.value.hint


def test_of_several_versions_the_one_that_runs_or_else_the_newest(monkeypatch, tmp_path, waiting, compile_c):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    source = WAITS.replace("waits", "versions")
    for number, name in enumerate(("new.so", "old.so")):
        shutil.copy(compile_c(source, f"-DVERSION={number}"), tmp_path / name)
        os.utime(tmp_path / name, (2**30 - number, 2**30 - number))
    (found,) = targets.find_probes("versions:start")
    assert found.path == str(tmp_path / "new.so")
    process = waiting(tmp_path / "old.so")
    (found,) = targets.find_probes("versions:start")
    assert found.path == str(tmp_path / "old.so")
    process.stdin.close()
    process.wait(10)
