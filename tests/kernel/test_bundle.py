"""Compiled programs that travel: in a bundle to a machine without a compiler, and in the wheel to everybody."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from commandline import WITHOUT_BCC, assert_explained, stop_tracing, usdtkit

from usdtkit.bpf import bundle
from usdtkit.bpf.compiler import _decode, compile_afresh
from usdtkit.cli import command, tool_names
from usdtkit.cli.bundle import programs_of

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
def elsewhere(tmp_path):
    """elsewhere(*arguments) -> the command on a machine without bcc, and with a cache of its own."""
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


def test_what_a_probe_s_trace_would_load(compile_c, tmp_path, elsewhere):
    line = ["trace", f"u:{compile_c('mysql_usdt.c')}:mysql:query__start"]
    assert usdtkit("bundle", " ".join(line), "-o", tmp_path / "trace.bundle").returncode == 0
    assert elsewhere("cache", "--add", tmp_path / "trace.bundle").returncode == 0
    done = elsewhere(*line, "-c", f"{compile_c('mysql_usdt.c')} 13")
    assert done.returncode == 0 and "received 13, lost 0" in done.stderr, done.stderr


def test_texts_do_not_depend_on_the_machine():
    """What a tool's name stands for was declared by heart; with options its libraries are looked for here."""
    for name in ("gethostlatency", "pamtrace", "stackcount"):
        for line, text in programs_of(name):
            assert [(f"{line} -d 1", text)] == list(programs_of(f"{line} -d 1"))


def test_of_what_a_tool_may_find_the_program_for_each(mariadb):
    """Three ways into servers of its kind are known by heart; the one that runs here has one of them."""
    [(_, real)] = programs_of(f"mysqld_qslower -p {mariadb.pid}")
    known = [text for _, text in programs_of("mysqld_qslower")]
    assert real in known and len(known) == len(set(known)) == 3


@pytest.mark.parametrize("name", [name for name in tool_names() if hasattr(command(name)[0], "VARIANTS")])
def test_variants_are_what_loads_a_program(name):
    assert all(line.partition(" ")[0] == name and len(text) > 997 for line, text in programs_of(name))


@pytest.mark.parametrize(
    ("line", "code", "word"),
    [
        ("nosuchtool", 2, "nosuchtool"),
        ("doctor", 2, "loads no program"),
        ("gethostlatency --explain", 2, "loads no program"),
        ("gethostlatency 'open", 2, "no command line"),
        ("gethostlatency --nonsense", 2, "--nonsense"),
        ("trace nosuch:probe", 4, "nosuch:probe"),
    ],
)
def test_what_cannot_be_packed(line, code, word, tmp_path):
    done = usdtkit("bundle", line, "-o", tmp_path / "file")
    assert done.returncode == code and word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_where_it_cannot_be_written(tmp_path):
    assert_explained(usdtkit("bundle", "pamtrace", "-o", tmp_path / "missing" / "file"), 1, "missing")


def test_a_cache_that_takes_nothing(tmp_path, monkeypatch):
    assert usdtkit("bundle", "pamtrace", "-o", tmp_path / "file").returncode == 0
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    assert_explained(usdtkit("cache", "--add", tmp_path / "file"), 1, "takes no programs", "chmod 700")


def test_bytecode_of_another_program_is_one_error(tmp_path):
    """A bundle whose entry is not what its key says."""
    assert usdtkit("bundle", "gethostlatency", "stackcount c:malloc", "-o", tmp_path / "file").returncode == 0
    packed = bundle.read(tmp_path / "file")
    swapped = dict(zip(packed.entries, reversed(packed.entries.values()), strict=True))
    bundle.write(tmp_path / "swapped", bundle.Bundle(packed.machine, swapped, packed.used_by))
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    assert usdtkit("cache", "--add", tmp_path / "swapped", env=environment).returncode == 0
    for line in (["gethostlatency"], ["stackcount", "c:malloc"]):
        assert_explained(usdtkit(*line, "-d", "1", env=environment), 1, "not that of this session", "--clear")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of this checkout in which a wheel was built: dist/*.whl."""
    copy = tmp_path_factory.mktemp("built") / "usdtkit"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, env=os.environ | {"USDTKIT_REQUIRE_PROGRAMS": "1"})
    return copy


@pytest.fixture(scope="module")
def installed(tree, tmp_path_factory):
    """A fresh virtual environment with that wheel and what it depends on: its directory."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    [wheel] = (tree / "dist").glob("*.whl")
    subprocess.run([place / "bin" / "pip", "install", "-q", "--no-index", "--no-deps", wheel], check=True)
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
    assert "Tracing" in tracer.stderr.readline()
    subprocess.run(["getent", "ahosts", "localhost"], check=True, capture_output=True)
    output, _ = stop_tracing(tracer)
    assert '"host": "localhost"' in output


def test_what_is_shipped_is_what_the_compiler_gives(installed):
    [file] = installed.glob("lib/python*/site-packages/usdtkit/bpf/shipped.bundle")
    shipped = bundle.read(file)
    texts = {line: text for name in ("gethostlatency", "pamtrace", "stackcount") for line, text in programs_of(name)}
    lines = {line: shipped.entries[key] for key, lines in shipped.used_by.items() for line in lines}
    assert texts.keys() <= lines.keys()
    for line, text in texts.items():
        assert _decode(lines[line]) == compile_afresh(text)


def test_a_wheel_that_is_built_without_bcc_says_so_and_has_none(tree):
    bundles = list(tree.glob("build/lib*/usdtkit/bpf/shipped.bundle"))
    assert len(bundles) == 1
    done = subprocess.run(
        [*WITHOUT_BCC, sys.executable, "setup.py", "build"], cwd=tree, text=True, capture_output=True, check=True
    )
    assert "comes without compiled programs" in done.stderr
    assert not bundles[0].exists()
