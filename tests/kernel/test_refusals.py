"""What a machine may lack: a compiler, privilege, BPF itself. Each is one error with a hint, and nothing stays."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import BY_BCC
from processes import among_own_mounts

from usdtkit import trace
from usdtkit.bpf import compiler, program
from usdtkit.errors import NotFoundError, ProgramError, UsdtkitError, as_root
from usdtkit.kernel.attach.uprobe_multi import UprobeMulti
from usdtkit.kernel.load import Loaded

# Arguments: the program to trace, an expression's constant that makes the text a new one, a method to attach.
TRACER = """
import sys
from usdtkit import trace
from usdtkit.errors import UsdtkitError
path, fields, method = sys.argv[1:]
try:
    with trace.Session(method=method or None) as session:
        session.usdt("step:guarded", path=path).emit(**{f"f{n}": trace.arg(1) for n in range(int(fields))})
        session.start()
        print("attached", flush=True)
        sys.stdin.readline()
        print("received", len(list(session.drain())))
except UsdtkitError as error:
    print("error", type(error).__name__, error.exit_code, error.message, "| hint:", error.hint)
"""
# seccomp: bpf(2) answers that there is no such call.
WITHOUT_BPF = """
import ctypes, struct
number = {"x86_64": 321, "aarch64": 280}[__import__("platform").machine()]
code = struct.pack("<HBBIHBBIHBBIHBBI", 0x20, 0, 0, 0, 0x15, 0, 1, number, 6, 0, 0, 0x50000 | 38, 6, 0, 0, 0x7FFF0000)
filter = ctypes.create_string_buffer(code, len(code))
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(filter)), 16)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
"""
# CAP_DAC_READ_SEARCH lets the tracer read this checkout and its Python, wherever they lie; it opens nothing to BPF.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def instead_of_packages(folder):
    """A prefix for commands that see this folder where Debian has Python's packages."""
    return [*among_own_mounts(f'mount --bind {folder} /usr/lib/python3/dist-packages; exec "$@"'), "-"]


def without_tracing_rights(*granted):
    given = ",".join(["-all", "+dac_read_search", *granted])
    return [*NOBODY, f"--inh-caps={given}", f"--bounding-set={given}", f"--ambient-caps={given}"]


@pytest.fixture
def answer(run_python, stepper):
    """answer(fields=1, method="", before="", **popen) -> what TRACER prints first, and its process."""

    def start(fields=1, method="", before="", **popen):
        target = stepper()
        process = run_python(before + TRACER, target.path, str(fields), method, **popen)
        return process.stdout.readline().strip(), process, target

    return start


def test_without_privilege(answer):
    said, process, target = answer(prefix=without_tracing_rights())
    assert said.startswith("error PrivilegeError 3 ")
    assert "CAP_BPF" in said.partition("| hint:")[2]
    assert process.wait(20) == 0
    assert target.fire(13) == 0


def test_bpf_and_perfmon_suffice_for_uprobe_multi(answer, wait_for_line):
    said, process, target = answer(prefix=without_tracing_rights("+bpf", "+perfmon"))
    assert said == "attached"
    assert target.fire(97) == 97
    process.stdin.write("\n")
    process.stdin.flush()
    assert wait_for_line(process, "received") == "received 97"
    process.wait(20)
    assert target.fire(13) == 0


def test_perf_events_need_more(answer):
    said, _, target = answer(method="perf_link", prefix=without_tracing_rights("+bpf", "+perfmon"))
    assert said.startswith("error PrivilegeError 3 ")
    assert target.path in said
    assert target.fire(13) == 0


def test_bpf_alone_does_not_suffice(answer):
    said, _, target = answer(prefix=without_tracing_rights("+bpf"))
    assert said.startswith("error PrivilegeError 3 ")
    assert target.fire(13) == 0


def test_a_kernel_without_bpf(answer):
    said, _, _ = answer(before=WITHOUT_BPF)
    assert said.startswith("error UnsupportedError 5 ")
    assert "CONFIG_BPF_SYSCALL" in said


def test_no_compiler_is_needed_for_what_is_in_the_cache_only(answer, tmp_path):
    hidden = instead_of_packages(tmp_path)
    said, _, _ = answer(fields=3, prefix=hidden, env=BY_BCC)
    assert said.startswith("error UnsupportedError 5 ")
    assert "No module named 'bcc'" in said and "apt install python3-bpfcc" in said
    said, _, _ = answer(fields=3, env=BY_BCC)  # cold
    assert said == "attached"
    said, _, target = answer(fields=3, prefix=hidden, env=BY_BCC)
    assert said == "attached"
    assert target.fire(97) == 97


def test_another_package_that_is_called_bcc(answer, tmp_path):
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("")
    hidden = instead_of_packages(tmp_path)
    said, _, _ = answer(fields=4, prefix=hidden, env=BY_BCC)
    assert said.startswith("error UnsupportedError 5 ")
    assert "is not the BPF compiler collection" in said


def test_an_unknown_user_without_a_home(answer):
    environment = {"HOME": "", "USDTKIT_CACHE": "", "XDG_CACHE_HOME": ""}
    prefix = [arg.replace("65534", "54321") for arg in without_tracing_rights("+bpf", "+perfmon")]
    said, _, target = answer(prefix=["env", "-u", "HOME", *prefix], env=environment)
    assert said == "attached"
    assert target.fire(97) == 97


@pytest.mark.parametrize("as_module", [False, True])
def test_the_hint_is_a_line_that_works(as_module, tmp_path):
    """It is run as it was printed, by a sudo that searches for commands where none of ours is."""
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin exec "$@"\n')
    sudo.chmod(0o755)
    bin_directory = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{tmp_path}:{bin_directory}:{os.environ['PATH']}"}
    words = ["gethostlatency", "--json", "-d", "0.1", "-p", str(os.getpid())]
    command = [sys.executable, "-m", "usdtkit"] if as_module else ["usdtkit"]
    pipes = {"text": True, "capture_output": True, "env": environment}
    done = subprocess.run([*without_tracing_rights(), *command, *words], **pipes)
    assert done.returncode == 3
    hint = done.stderr.splitlines()[-1]
    line = hint[hint.index(": sudo /") + 2 :]
    assert line.endswith(shlex.join(words)) and str(bin_directory) in line
    done = subprocess.run(["sh", "-c", line], **pipes)
    assert done.returncode == 0 and '"lost": 0' in done.stdout, done.stderr


def test_the_hint_where_there_is_no_sudo_or_we_are_root(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.argv", ["/bin/sh", "a b"])
    assert as_root("with more") == "run with all capabilities of root, or with more"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert as_root("with more") == """run as root, or with more: su -c '/bin/sh '"'"'a b'"'"''"""


def test_what_clang_says_comes_with_its_line():
    with pytest.raises(UsdtkitError, match=r"undeclared.* in: return nonsense;"):
        compiler.compile_program(program.PRELUDE + "int hook_0(struct pt_regs *ctx) {\n  return nonsense;\n}\n")


def test_what_the_verifier_says_comes_with_its_reason():
    text = program.PRELUDE + "int hook_0(struct pt_regs *ctx) { return *(int *)(u64)bpf_ktime_get_ns(); }\n"
    loaded = Loaded(compiler.compile_program(text))
    try:
        with pytest.raises(ProgramError, match=r"verifier rejects the program: .*R\d.*mem") as raised:
            loaded.program("hook_0", 0)
        assert raised.value.function == "hook_0"
    finally:
        loaded.close()


def test_a_compiler_that_hangs_or_dies(monkeypatch, tmp_path):
    child = tmp_path / "child.py"
    monkeypatch.setattr(compiler, "CHILD", child)
    child.write_text("import os; os.kill(os.getpid(), 11)")
    with pytest.raises(UsdtkitError, match="the compiler died"):
        compiler.compile_program("int died;")
    monkeypatch.setattr(compiler, "COMPILE_PATIENCE_S", 0.2)
    child.write_text("import signal; signal.pause()")
    with pytest.raises(UsdtkitError, match="took longer than"):
        compiler.compile_program("int hung;")


def test_a_compiler_that_never_ends(monkeypatch, tmp_path):
    """Its own limit ends it: here one second of the processor."""
    bcc = tmp_path / "bcc.py"
    bcc.write_text("while True:\n    pass\n")
    child = tmp_path / "child.py"
    child.write_text(Path(compiler.CHILD).read_text().replace("/usr/lib/python3/dist-packages", str(tmp_path)))
    monkeypatch.setattr(compiler, "CHILD", child)
    monkeypatch.setattr(compiler, "COMPILE_LIMIT_S", 1)
    with pytest.raises(UsdtkitError, match="more than 1 s of the processor"):
        compiler.compile_program("int endless;")


def test_a_start_that_fails_half_way_detaches_what_was_attached(stepper, tmp_path, monkeypatch):
    target = stepper()
    copy = tmp_path / "copy"
    copy.write_bytes(Path(target.path).read_bytes())
    session = trace.Session()
    session.usdt("step:guarded", path=target.path).count()
    session.usdt("step:plain", path=str(copy)).count()
    attach = UprobeMulti._attach

    def fails(way, link, sites, pid):
        if link.file.path == str(copy):
            raise NotFoundError("gone")
        return attach(way, link, sites, pid)

    monkeypatch.setattr(UprobeMulti, "_attach", fails)
    with pytest.raises(NotFoundError):
        session.start()
    assert target.fire(13) == 0  # and the leak check finds no descriptor
