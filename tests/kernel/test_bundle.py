"""Compiled programs that travel: in a bundle to a machine without a compiler, and in the wheel to everybody."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from hashlib import blake2b
from pathlib import Path

import pytest
from commandline import BY_BCC, WITHOUT_BCC, assert_explained, stop_tracing, usdtkit
from processes import read_until

from usdtkit import cache
from usdtkit.bpf import bundle
from usdtkit.bpf.bytecode import decode
from usdtkit.bpf.compiler import _key, compile_program
from usdtkit.bpf.translator import translate
from usdtkit.cli import command, main, tool_names
from usdtkit.cli.bundle import programs_of, programs_of_tools
from usdtkit.errors import UsdtkitError

# Tools that have no program before they are told what to trace.
OF_A_USER = {"argdist", "probelatency", "trace"}
# Tools whose targets every Debian has, or which are in this process.
HERE = [
    *("bashreadline", "deadlock", "funccount", "funcinterval", "funclatency", "funcslower", "gethostlatency"),
    *("libcalls", "memleak", "mutexstat", "pamtrace", "ssllatency", "sslsniff", "stackcount", "threadsnoop"),
]
ROOT = Path(__file__).parents[2]
NOT_COPIED = (
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "*.egg-info",
    "*.so",
    "*.bundle",
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """elsewhere(*arguments) -> the command on a machine without bcc, and with a cache of its own.

    Neither there nor here is any program translated, so that each is in the bundle or needs bcc.
    """
    monkeypatch.setenv("USDTKIT_COMPILER", BY_BCC["USDTKIT_COMPILER"])
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "elsewhere")}
    return lambda *arguments: usdtkit(*arguments, prefix=WITHOUT_BCC, env=environment)


def test_a_machine_without_bcc_runs_what_is_in_a_bundle(tmp_path, elsewhere):
    file = tmp_path / "tools.bundle"
    done = usdtkit("bundle", "gethostlatency", "stackcount c:free", "-o", file)
    assert done.returncode == 0 and done.stdout.startswith(f"{file}: 3 programs, "), done.stderr
    assert_explained(elsewhere("gethostlatency"), 5, "compiled")
    assert elsewhere("cache", "--add", file).stdout.splitlines()[-1] == "3 added"
    for line in (["gethostlatency"], ["gethostlatency", "-m", "997"], ["stackcount", "c:malloc"]):
        done = elsewhere(*line, "-d", "0.1", "-p", os.getpid())
        assert done.returncode == 0, done.stderr


def test_command_lines_with_words_of_a_user(compile_c, tmp_path, elsewhere):
    """Each runs where the bundle was taken in, and there with other numbers and texts."""
    program = compile_c("mysql_usdt.c")
    probe = f"u:{program}:mysql:query__start"
    lines = {
        ("trace", f'{probe} (arg2 != 7) "query %s", arg1'): ("trace", f'{probe} (arg2 != 997) "it is %s", arg1'),
        ("argdist", "-C", f"{probe}(): char*: arg1: arg2 > 7"): ("argdist", "-C", f"{probe}(): char*: arg1: arg2 > 0"),
        ("probelatency", f"u:{program}:mysql:query__start", f"u:{program}:mysql:query__done"): None,
        ("funccount", "c:str*"): ("funccount", "c:mem*"),
        ("stackcount", probe): None,
    }
    for number, (packed, wanted) in enumerate(lines.items()):
        file = tmp_path / f"{number}.bundle"
        done = usdtkit("bundle", "-o", file, "--line", *packed)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{file}: 1 programs, ")
        command = [*(wanted or packed), "--command", f"{program} 13"]
        assert_explained(elsewhere(*command), 5, "compiled")
        assert elsewhere("cache", "--add", file).returncode == 0
        done = elsewhere(*command)
        assert done.returncode == 0 and "lost 0" in done.stderr, done.stderr


def test_what_is_known_by_heart_is_what_a_tool_loads_here():
    """With options its libraries are looked for, in this process or on this machine."""
    for name in HERE:
        known = {text for _, text in programs_of(name)}
        for options in getattr(command(name)[0], "VARIANTS", ("",)):
            [(_, real)] = programs_of(f"{name} {options.replace('-p 1', f'-p {os.getpid()}')} -d 1")
            assert real in known, f"{name} {options}"


def test_of_what_a_tool_may_find_the_program_for_each(mariadb):
    """usdtkit knows servers by their functions, all of which are in one program, and by their probes."""
    [(_, real)] = programs_of(f"mysqld_qslower -p {mariadb.pid}")
    known = [text for _, text in programs_of("mysqld_qslower")]
    assert real in known and len(known) == len(set(known)) == 2


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("nosuchtool", 2, "nosuchtool"),
        ("doctor", 2, "loads no program"),
        ("gethostlatency --explain", 2, "loads no program"),
        ("gethostlatency 'open", 2, "not a command line"),
        (" ", 2, "the command line is empty"),
        ("gethostlatency --nonsense", 2, "--nonsense"),
        ("trace nosuch:probe", 4, "nosuch:probe"),
    ],
)
def test_what_cannot_be_packed(line, code, word, tmp_path):
    done = usdtkit("bundle", line, "-o", tmp_path / "file")
    assert done.returncode == code and word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_of_all_tools_one_program_that_does_not_compile_is_left_out(tmp_path, monkeypatch, capsys):
    def entry(text):
        if names[text]:
            raise UsdtkitError("clang says no")
        return blake2b(text.encode(), digest_size=32).hexdigest(), b"{}"

    names = {text: "gethostlatency" in used for text, used in programs_of_tools().items()}
    capsys.readouterr()
    monkeypatch.setattr("usdtkit.cli.bundle.cache_entry", entry)
    assert main(["bundle", "--all", "-o", str(tmp_path / "file")]) == 0
    said = capsys.readouterr().err
    total = len(names)
    assert len(re.findall(rf"^\[\d+/{total}\] .*: \d+\.\d s$", said, re.M)) == total - 1
    assert re.search(rf"^\[\d+/{total}\] gethostlatency: left out: clang says no$", said, re.M)
    assert len(bundle.read(tmp_path / "file").entries) == total - 1
    monkeypatch.setattr("usdtkit.cli.bundle.cache_entry", lambda text: entry(next(t for t in names if names[t])))
    assert main(["bundle", "--all", "-o", str(tmp_path / "file")]) == 1
    assert "no program compiles" in capsys.readouterr().err


def test_the_cache_is_filled_with_the_programs_of_all_tools(elsewhere, tmp_path, monkeypatch):
    done = elsewhere("cache", "--fill")
    assert (done.returncode, done.stdout) == (5, "") and "compiler is missing" in done.stderr
    monkeypatch.delenv("USDTKIT_COMPILER")
    done = usdtkit("cache", "--fill")
    assert done.returncode == 0, done.stderr
    total = len(programs_of_tools())
    assert len(re.findall(rf"^\[\d+/{total}\] ", done.stderr, re.M)) == total
    assert all(cache.load(_key(text)) for text in programs_of_tools())
    (tmp_path / "elsewhere").mkdir(mode=0o777, exist_ok=True)
    (tmp_path / "elsewhere").chmod(0o777)
    assert_explained(elsewhere("cache", "--fill"), 1, "cannot store programs", "chmod 700")


def test_where_it_cannot_be_written(tmp_path):
    assert_explained(usdtkit("bundle", "pamtrace", "-o", tmp_path / "missing" / "file"), 1, "missing")


def test_a_cache_that_takes_nothing(tmp_path, monkeypatch):
    assert usdtkit("bundle", "pamtrace", "-o", tmp_path / "file").returncode == 0
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    assert_explained(usdtkit("cache", "--add", tmp_path / "file"), 1, "cannot store programs", "chmod 700")


def test_bytecode_of_another_program_is_one_error(tmp_path):
    """A bundle whose entry is not what its key says."""
    assert usdtkit("bundle", "gethostlatency -d 1", "stackcount c:malloc", "-o", tmp_path / "file").returncode == 0
    packed = bundle.read(tmp_path / "file")
    swapped = dict(zip(packed.entries, reversed(packed.entries.values()), strict=True))
    bundle.write(tmp_path / "swapped", bundle.Bundle(packed.machine, swapped, packed.used_by))
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    assert usdtkit("cache", "--add", tmp_path / "swapped", env=environment).returncode == 0
    for line in (["gethostlatency"], ["stackcount", "c:malloc"]):
        assert_explained(usdtkit(*line, "-d", "1", env=environment), 1, "does not match this session", "--clear")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of this checkout in which a wheel was built: dist/*.whl.

    The build takes programs from the cache of this test run, which holds those that other tests have compiled, and
    leaves its own there.
    """
    copy = tmp_path_factory.mktemp("built") / "usdtkit"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, env=os.environ | {"USDTKIT_PROGRAMS": "1"})
    return copy


@pytest.fixture(scope="module")
def installed(tree, tmp_path_factory):
    """A fresh virtual environment with that wheel and what it depends on: its directory."""
    place = tmp_path_factory.mktemp("installed")
    # Installing pip into it would take as long as building the wheel: the pip of this environment can install there.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    [wheel] = (tree / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    # pip installs nothing where a checkout is on PYTHONPATH.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", wheel], check=True, env=environment, cwd="/")
    [packages] = place.glob("lib/python*/site-packages")
    ours = Path(sysconfig.get_paths()["platlib"])
    for dependency in (*ours.glob("cffi"), *ours.glob("_cffi_backend*"), *ours.glob("pycxxfilt*")):
        (packages / dependency.name).symlink_to(dependency)
    return place


def test_the_wheel_runs_without_bcc_and_cache(installed, tmp_path, spawn):
    environment = {**os.environ, "USDTKIT_CACHE": str(tmp_path / "cold")}
    environment.pop("PYTHONPATH", None)
    command = [installed / "bin" / "python", "-m", "usdtkit", "gethostlatency", "--json"]
    tracer = spawn([*WITHOUT_BCC, *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd="/")
    read_until(tracer, "Tracing", stream="stderr", timeout=60)
    subprocess.run(["getent", "ahosts", "localhost"], check=True, capture_output=True)
    output, _ = stop_tracing(tracer)
    assert '"host": "localhost"' in output


def test_what_is_shipped_is_what_the_compiler_gives_of_every_tool(installed):
    """Every program of every tool that has any without a user's words, and nothing else.

    Each is compared with the cache of this run, and with what the translator makes of its text now.
    """
    [file] = installed.glob("lib/python*/site-packages/usdtkit/bpf/shipped.bundle")
    shipped = bundle.read(file)
    texts = {_key(text): text for name in set(tool_names()) - OF_A_USER for _, text in programs_of(name)}
    assert texts.keys() == shipped.entries.keys()
    for key, text in texts.items():
        assert decode(shipped.entries[key]) == compile_program(text) == translate(text)
    named = {line.partition(" ")[0] for lines in shipped.used_by.values() for line in lines}
    assert named == set(tool_names()) - OF_A_USER


def test_a_build_compiles_programs_only_where_it_is_told_to(tree, tmp_path):
    bundles = list(tree.glob("build/lib*/usdtkit/bpf/shipped.bundle"))
    assert len(bundles) == 1
    environment = {**os.environ, **BY_BCC, "USDTKIT_CACHE": str(tmp_path / "cold")}
    command = [*WITHOUT_BCC, sys.executable, "setup.py", "build"]
    done = subprocess.run(command, cwd=tree, text=True, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not bundles[0].exists()
    environment["USDTKIT_PROGRAMS"] = "1"
    done = subprocess.run(command, cwd=tree, text=True, capture_output=True, env=environment)
    assert done.returncode != 0 and "its compiler is missing" in done.stderr and "python3-bpfcc" in done.stderr
    assert not bundles[0].exists()


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        assert_explained(usdtkit("bundle", "pamtrace", "-o", place), 1, "is not a regular file")
    assert pipe.is_fifo()
