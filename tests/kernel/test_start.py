"""A start with a warm cache: no compiler, little memory, and only what it needs is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import BY_BCC, USDTKIT, WITHOUT_BCC, start_tracing, stop_tracing, usdtkit

TOOLS = ("gethostlatency", "pamtrace")


def resident_mib(pid):
    """The most that the process ever had in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.parametrize("tool", TOOLS)
def test_a_warm_start_needs_no_bcc(tool, tmp_path, spawn):
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    assert usdtkit(tool, "-d", "0.1", env=environment).returncode == 0
    (entry,) = (tmp_path / "cache").iterdir()
    before = entry.stat().st_mtime_ns
    tracer = start_tracing(spawn, tool, prefix=WITHOUT_BCC, env=environment)
    assert not Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text()
    assert resident_mib(tracer.pid) < 50
    stop_tracing(tracer)
    assert entry.stat().st_mtime_ns == before


def test_one_compilation_serves_all_thresholds(tmp_path):
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    for threshold in ("1", "10", "997"):
        assert usdtkit("gethostlatency", "-d", "0.1", "-m", threshold, env=environment).returncode == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_that_another_user_could_have_written_is_not_used(tmp_path):
    cache = tmp_path / "cache"
    environment = os.environ | BY_BCC | {"USDTKIT_CACHE": str(cache)}
    assert usdtkit("gethostlatency", "-d", "0.1", env=environment).returncode == 0
    cache.chmod(0o777)
    done = usdtkit("gethostlatency", "-d", "0.1", prefix=WITHOUT_BCC, env=environment)
    assert done.returncode == 5


def test_a_damaged_cache_is_made_anew(tmp_path):
    environment = os.environ | {"USDTKIT_CACHE": str(tmp_path / "cache")}
    assert usdtkit("gethostlatency", "-d", "0.1", env=environment).returncode == 0
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:997])
    assert usdtkit("gethostlatency", "-d", "0.1", env=environment).returncode == 0
    assert usdtkit("gethostlatency", "-d", "0.1", prefix=WITHOUT_BCC, env=environment).returncode == 0


def test_an_application_imports_neither_tracer_nor_compiler():
    code = "import sys; from usdtkit import Provider; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.split()
    assert "usdtkit.probes" in modules
    assert not [name for name in modules if name.startswith(("usdtkit.bpf", "usdtkit.trace", "bcc", "elftools"))]


def imported_by(*arguments):
    """The modules that a command imports."""
    command = [sys.executable, "-X", "importtime", *USDTKIT[1:], *arguments]
    reported = subprocess.run(command, text=True, capture_output=True, check=True).stderr
    return {line.rpartition("|")[2].strip() for line in reported.splitlines() if "|" in line}


def test_a_tool_imports_no_compiler_and_little_else():
    assert usdtkit("gethostlatency", "-d", "0.1").returncode == 0  # the program is in the cache
    modules = imported_by("gethostlatency", "-d", "0.1")
    assert "usdtkit.trace.session" in modules
    assert not modules & {
        "bcc",
        "dataclasses",
        "hashlib",
        "inspect",
        "locale",
        "pathlib",
        "usdtkit.elf.notes",
        "usdtkit.trace.command",
        "logging",
        "subprocess",
        "csv",
        "asyncio",
        "elftools.elf.elffile",
    }


# What only a program in the kernel needs.
ATTACHING = {
    "json",
    "locale",
    "usdtkit.cache",
    "usdtkit.bpf.compiler",
    "usdtkit.kernel.attach.links",
    "usdtkit.kernel.load",
    "usdtkit.kernel.maps",
    "usdtkit.trace.armed",
    "usdtkit.trace.command",
    "usdtkit.trace.running",
}


def test_explain_imports_nothing_that_attaches():
    modules = imported_by("gethostlatency", "--explain")
    assert "usdtkit.trace.session" in modules
    assert not modules & ATTACHING


def test_help_imports_nothing_that_attaches_and_no_compiled_shim():
    modules = imported_by("gethostlatency", "-h")
    assert "usdtkit.cli.tracing" in modules
    assert not modules & (ATTACHING | {"signal", "usdtkit._ffi", "usdtkit.kernel.attach.sites"})


@pytest.mark.parametrize("arguments", [["trace", "-h"], ["argdist", "-h"], ["funccount", "--explain", "c:malloc"]])
def test_tools_for_specs_import_no_dataclasses(arguments):
    modules = imported_by(*arguments)
    assert "usdtkit.language.hooks" in modules or "usdtkit.language.select" in modules
    assert not modules & {"dataclasses", "inspect", "usdtkit.record_views"}
