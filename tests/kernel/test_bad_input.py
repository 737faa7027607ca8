"""What goes wrong is said in one line, with a hint where one helps, and the documented exit code. Never a traceback."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import BY_BCC, NOBODY, USDTKIT, WITHOUT_BCC, assert_explained, end_of_tracing, start_tracing, usdtkit
from processes import among_own_mounts

pytestmark = pytest.mark.machine

TOOLS = ("gethostlatency", "mysqld_qslower", "pamtrace")


@pytest.fixture
def files(tmp_path, compile_c):
    """A directory of files that are not what they should be."""
    whole = compile_c("mysql_usdt.c").read_bytes()
    (tmp_path / "truncated").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "header").write_bytes(whole[:64])
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    shutil.copy("/bin/true", tmp_path / "no\x1b[31mcolour\n")
    return tmp_path


@pytest.fixture
def dead(spawn):
    """The number of a process that has ended."""
    process = spawn(["true"])
    process.wait(10)
    return process.pid


@pytest.mark.parametrize("command", ["list", "trace"])
@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("missing", 4, "no such file"),
        ("loop", 4, "no such file"),
        ("truncated", 1, "truncated"),
        ("header", 1, "truncated"),
        ("text", 1, "not an ELF file"),
        ("empty", 1, "not an ELF file"),
        ("directory", 4, "no ELF file below"),
        ("fifo", 1, "not a regular file"),
        ("no\x1b[31mcolour\n", 4, "no\\x1b[31mcolour\\x0a"),
    ],
)
def test_a_file_that_is_no_program_with_probes(command, name, code, words, files):
    path = files / name
    arguments = [path] if command == "list" else [f"u:{path}:mysql:query__start"]
    done = usdtkit(command, *arguments)
    assert_explained(done, code, words)


@pytest.mark.parametrize("spec", ["mysql:query_start", "mysq:query__start"])
def test_no_such_probe_in_a_file(spec, compile_c):
    done = usdtkit("trace", f"u:{compile_c('mysql_usdt.c')}:{spec}")
    assert_explained(done, 4, f"no probe {spec}", "near: mysql:query__start", "usdtkit list")


def test_no_such_probe_in_a_process(shop):
    done = usdtkit("trace", "-p", shop.pid, "shop:order_start")
    assert_explained(done, 4, f"no probe shop:order_start in process {shop.pid}", "near: shop:order__start")


def test_no_such_probe_anywhere():
    done = usdtkit("trace", "usdtkit_tests:no_such_probe")
    assert done.returncode == 4
    assert "no probe usdtkit_tests:no_such_probe in provider files and running processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("letter", ["p", "r"])
def test_no_such_function(letter):
    done = usdtkit("trace", f"{letter}:c:getadrinfo")
    assert_explained(done, 4, "no function getadrinfo in c", "near: getaddrinfo")


def test_no_such_library():
    assert_explained(usdtkit("trace", "p:nosuchlibrary:main"), 4, "'nosuchlibrary'", "hint")


@pytest.mark.parametrize("command", [["list"], ["trace", "a:b"], *([tool] for tool in TOOLS)], ids=" ".join)
def test_no_such_process(command, dead):
    assert_explained(usdtkit(*command, "-p", dead), 4, f"no process {dead}")


def test_no_such_server(dead):
    assert_explained(usdtkit("mysqld_qslower", dead), 4, f"no process {dead}")


def test_a_server_that_is_none(spawn, wait_for_line):
    process = spawn(["sh", "-c", "echo ready; read line"])
    wait_for_line(process, "ready")
    done = usdtkit("mysqld_qslower", process.pid)
    assert_explained(done, 4, "neither the probes nor the functions of mysql")


def test_no_such_tool():
    assert_explained(usdtkit("gethostlatancy"), 2, "'gethostlatancy'", "did you mean gethostlatency?")
    assert_explained(usdtkit("\x1b[31m"), 2, "\\x1b[31m", "usdtkit -h")


@pytest.mark.parametrize(
    "spec", ["", ":", "nocolon", "u:", "u:a:b:c:d", "p:", "p::", "p:c:", ":name", "provider:", "x:a:b"]
)
def test_a_spec_that_is_none(spec):
    done = usdtkit("trace", spec)
    assert (done.returncode, done.stdout) == (2, "")
    message, line, caret, hint = done.stderr.splitlines()
    assert message.startswith("usdtkit: ") and hint.startswith("  hint: ")
    assert (line, caret.strip()) == (f"  {spec}", "^")


@pytest.mark.parametrize("command", [["trace", "a:b"], *([tool] for tool in TOOLS)], ids=lambda command: command[0])
@pytest.mark.parametrize(
    "options",
    [
        *(["-p", "0"], ["-p", "-1"], ["-p", "1,"], ["-p", str(2**64)], ["-p"]),
        *(["-d", "0"], ["-d", "-1"], ["-d", "nan"], ["-d", "inf"], ["-d", "soon"]),
        *(["--max-lost", "-1"], ["--json", "--csv"], ["--no-such-option"]),
    ],
    ids="".join,
)
def test_option_values_that_make_no_sense(command, options):
    assert_explained(usdtkit(*command, *options), 2, f"usdtkit {command[0]} -h")


@pytest.mark.parametrize("size", ["0", "-1", "4097", "99999", "x", str(2**64)])
def test_string_sizes(size):
    assert_explained(usdtkit("trace", "-Z", size, "p:c:getaddrinfo"), 2, "hint")


@pytest.mark.parametrize("tool", ["gethostlatency", "mysqld_qslower"])
@pytest.mark.parametrize("threshold", ["-1", "nan", "inf", "1e300", "x"])
def test_thresholds(tool, threshold):
    assert_explained(usdtkit(tool, "-m", threshold), 2, "milliseconds")


@pytest.mark.parametrize("command", [["trace", "p:c:getaddrinfo"], ["gethostlatency"], ["pamtrace"]], ids=" ".join)
def test_without_privilege(command):
    assert_explained(usdtkit(*command, prefix=NOBODY), 3, "privilege", "root", "CAP_BPF")


def test_without_privilege_to_look_for_a_server():
    assert_explained(usdtkit("mysqld_qslower", prefix=NOBODY), 3, "root")


def test_without_privilege_to_look_into_a_process():
    assert_explained(usdtkit("list", "-p", os.getpid(), prefix=NOBODY), 3, f"process {os.getpid()}", "root")


def test_without_bcc_a_new_program_cannot_be_compiled(tmp_path):
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(tmp_path / "cold")}
    done = usdtkit("gethostlatency", prefix=WITHOUT_BCC, env=environment)
    assert_explained(done, 5, "compiled", "/usr/lib/python3/dist-packages/bcc", "apt install python3-bpfcc")


def test_with_another_bcc_on_the_path(tmp_path):
    """PyPI's project of that name, say."""
    (tmp_path / "bcc.py").write_text("import nothing_of_the_kind\n")
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(tmp_path / "cold"), "PYTHONPATH": str(tmp_path)}
    environment["PYTHONPATH"] += ":" + ":".join(filter(None, sys.path))
    assert usdtkit("gethostlatency", "-d", "0.1", env=environment).returncode == 0  # that one is not even looked at


def test_a_compiler_that_dies(tmp_path):
    """What the child writes is no bytecode: it is said, and nothing is kept in the cache."""
    cold = tmp_path / "cold"
    command = among_own_mounts('mount --bind "$0" /usr/lib/python3/dist-packages/bcc; exec "$@"')
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(cold)}
    done = usdtkit("gethostlatency", prefix=[*command, tmp_path / "bcc"], env=environment)
    assert_explained(done, 1, "compile")
    assert not cold.exists()


@pytest.mark.parametrize(
    "arguments", [["-h"], ["list", "-h"], ["list", "{probes}"], ["doctor"], ["gethostlatency", "-d", "1"]]
)
def test_no_room_for_the_output(arguments, compile_c):
    arguments = [argument.format(probes=compile_c("mysql_usdt.c")) for argument in arguments]
    with Path("/dev/full").open("w") as full:
        done = usdtkit(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "usdtkit: standard output: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["gethostlatency", "-d", "1", "--csv"]])
def test_no_output_at_all(arguments):
    done = usdtkit(*arguments, prefix=["sh", "-c", 'exec "$@" >&-', "sh"])
    assert_explained(done, 1, "standard output is closed")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_no_messages(redirection):
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    done = usdtkit("gethostlatency", "-p", os.getpid(), "-d", "0.1", prefix=shell)
    assert done.returncode == 0
    assert done.stdout.split()[0] == "TIME"
    assert len(done.stdout.splitlines()) == 1
    assert usdtkit("nosuchtool", prefix=shell).returncode == 2


def test_a_locale_without_our_letters():
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = usdtkit("trace", "-h", env=environment)
    assert done.returncode == 0, done.stderr
    tracing = usdtkit("gethostlatency", "-d", "0.1", env=environment | {"PYTHONIOENCODING": "ascii"})
    assert tracing.returncode == 0, tracing.stderr


def test_a_process_that_ends_meanwhile(spawn, wait_for_line):
    process = spawn(["sh", "-c", "echo ready; read line"])
    wait_for_line(process, "ready")
    tracer = start_tracing(spawn, "trace", "-p", process.pid, "p:c:getenv")
    process.stdin.close()
    process.wait(10)
    assert end_of_tracing(tracer)[1] == "received 0, lost 0\n"


def test_ctrl_c_before_anything_is_attached(tmp_path, spawn):
    """While the compiler runs, Ctrl-C reaches it too; neither says more than it must."""
    slow = tmp_path / "bcc"
    slow.mkdir()
    os.mkfifo(tmp_path / "started")
    # Opened here first, so that neither side waits for the other.
    started = os.open(tmp_path / "started", os.O_RDONLY | os.O_NONBLOCK)
    (slow / "__init__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'started')!r}).write_text('go')\ntime.sleep(997)\n"
    )
    command = among_own_mounts('mount --bind "$0" /usr/lib/python3/dist-packages/bcc; exec "$@"')
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(tmp_path / "cold")}
    process = spawn([*command, slow, *USDTKIT, "gethostlatency"], stderr=subprocess.PIPE, env=environment)
    compiling = select.select([started], [], [], 60)[0]
    os.close(started)
    assert compiling
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read() == ""


@pytest.mark.parametrize("tool", ["gethostlatency", "mysqld_qslower", "nodehttp", "memleak", "ucalls"])
def test_an_empty_command(tool):
    assert_explained(usdtkit(tool, "-c", ""), 2, "an empty command cannot be traced")


def test_a_server_whose_program_was_replaced(tmp_path, compile_c, ready):
    """As after an upgrade: it runs a file that has no name any more."""
    program = shutil.copy(compile_c("mysql_usdt.c"), tmp_path / "mysqld")
    server = ready([program, "1"])
    Path(program).unlink()
    done = usdtkit("mysqld_qslower", "-p", server.pid, "-d", "0.1")
    assert done.returncode == 0, done.stderr
    assert "received 0, lost 0" in done.stderr


def test_an_output_file_says_what_is_wrong_with_it(tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("kept")
    tool = ["gethostlatency", "-p", os.getpid(), "-d", "0.1"]
    assert_explained(usdtkit(*tool, "--format", "nonsense", "--output", kept), 2, "no output format is called")
    assert kept.read_text() == "kept"
    assert_explained(usdtkit(*tool, "--json", "--output", tmp_path), 1, f"{tmp_path}: Is a directory")
    assert_explained(usdtkit(*tool, "--json", "--output", "/dev/full"), 1, "/dev/full: No space left on device")


def test_histograms_are_no_calls():
    for tool, form in ((["probelatency", "c:malloc", "c:free"], "chrome"), (["mutexstat", "-H"], "folded")):
        done = usdtkit(*tool, "-p", os.getpid(), "-d", "60", "--format", form)
        assert_explained(done, 2, f"usdtkit {tool[0]} ")
