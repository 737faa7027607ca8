"""Completion, asked of the shells themselves."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from usdtkit import cli
from usdtkit.cli.offers import offers

NAMES = [*cli.COMMANDS, *cli.tool_names()]


@pytest.fixture
def script(capsys, tmp_path):
    """script(shell) -> the path of what the command prints."""

    def write(shell):
        assert cli.main(["completion", shell]) == 0
        path = tmp_path / f"_usdtkit.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


# The command that the scripts ask.
COMMAND = f'usdtkit() {{ {sys.executable} -m usdtkit "$@"; }}'


def run(*command, **options):
    done = subprocess.run(command, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def bash(script):
    """bash(words…) -> what it offers for the last word."""
    path = script("bash")

    def complete(*words):
        # Readline splits words at colons too.
        parts = [part for word in words for part in (re.findall(r":|[^:]+", word) or [""])]
        ask = f'''{COMMAND}; source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _usdtkit
        printf "%s\\n" "${{COMPREPLY[@]}}"'''
        line = " ".join(words)
        environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_WORDBREAKS": " :="}
        return run("bash", "--norc", "-c", ask, "bash", *parts, env=environment)

    return complete


def test_bash(bash):
    assert bash("usdtkit", "") == NAMES
    assert bash("usdtkit", "mem") == ["memleak"]
    options = [flag for action in cli.command("memleak")[1]._actions for flag in action.option_strings]
    assert bash("usdtkit", "memleak", "-") == options
    assert bash("usdtkit", "memleak", "--show") == ["--show-allocs"]
    assert bash("usdtkit", "memleak", "--sort", "") == ["size", "count"]
    assert bash("usdtkit", "completion", "z") == ["zsh"]
    assert bash("usdtkit", "provider", "") != [""]
    assert bash("usdtkit", "nothing", "") == [""]
    assert not [name for name in bash("usdtkit", "trace", "-") if name in ("--offer", "-K")]


def test_bash_offers_what_this_machine_has(bash, named):
    assert "malloc" in bash("usdtkit", "trace", "c:mal")
    assert "malloc" in bash("usdtkit", "funccount", "p:c:mallo")
    assert "c:malloc" in bash("usdtkit", "argdist", "-C", "'c:mallo")  # a quotation is one word
    assert "malloc" in bash("usdtkit", "libcalls", "mallo")
    assert str(os.getpid()) in bash("usdtkit", "memleak", "-p", str(os.getpid())[:1])
    assert bash("usdtkit", "memleak", "-p", named[:-1]) == [named]
    assert bash("usdtkit", "trace", "-p", f"1,{named[:-1]}") == [f"1,{named}"]
    assert bash("usdtkit", "ucalls", named[:-1]) == [named]


def test_what_a_shell_would_run_is_not_offered(bash, hostile, tmp_path):
    offered = offers("process", "")
    assert not [name for name in offered if not re.fullmatch(r"(?!-)[\w.:@%+,/=-]+", name)]
    assert offers("process", "evil") == offers("place", "evil") == []
    assert bash("usdtkit", "trace", "-p", "evil") == [""]
    assert bash("usdtkit", "trace", "-p", "$(touch hit)") == bash("usdtkit", "trace", "$(touch hit)") == [""]
    assert not (tmp_path / "hit").exists()


def test_offers(waiting, monkeypatch):
    monkeypatch.setattr("usdtkit.cli.offers.SEARCH_S", 60)
    assert offers("place", "c:mallo")[0] == "c:malloc"
    assert {"c:"} <= set(offers("place", "c"))
    assert "p:c:" in offers("place", "p:c")
    assert len(offers("place", "c:")) > 1000
    assert "u:stdc++:libstdcxx:throw" in offers("place", "u:stdc++:libstdcxx:t")
    assert "tabbed:start" in offers("place", "tabbed:")
    assert "u::tabbed:start" in offers("place", "u::tabbed:st")
    assert offers("place", "no-such-library-997:x") == offers("place", "/etc/passwd:x") == []
    with pytest.raises(KeyError):
        offers("nothing", "")


@pytest.fixture
def waiting(compile_c, spawn, wait_for_line):
    """A program with a probe runs."""
    source = '#include <stdio.h>\n#include <sys/sdt.h>\nint main() { puts("ready"); fflush(stdout); '
    process = spawn([compile_c(source + "DTRACE_PROBE1(tabbed, start, 997); return getchar(); }")])
    wait_for_line(process, "ready")


@pytest.fixture
def named(tmp_path):
    """The name of a program that runs."""
    program = tmp_path / f"named-{os.getpid()}"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "997"])
    yield program.name
    process.kill()
    process.wait()


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A program runs whose name is a command."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "evil$(touch hit);touch hit"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "997"])
    yield
    process.kill()
    process.wait()


def test_fish(script, named):
    path = script("fish")

    def complete(line):
        command = f"function usdtkit; {sys.executable} -m usdtkit $argv; end"
        offered = run("fish", "--no-config", "-c", f"{command}; source {path}; complete -C {line!r}")
        return dict(one.split("\t") if "\t" in one else (one, "") for one in offered)

    assert complete("usdtkit mem")["memleak"] == cli.command("memleak")[1].description
    assert set(NAMES) <= set(complete("usdtkit "))
    assert complete("usdtkit memleak --show") == {"--show-allocs": "show each block, not only the sums"}
    assert set(complete("usdtkit memleak --sort ")) == {"size", "count"}
    assert "c:malloc" in complete("usdtkit trace c:mallo")
    assert set(complete(f"usdtkit memleak -p {named[:-1]}")) == {named}


def test_zsh(script, named):
    path = script("zsh")

    def complete(*words):
        # What it hands to zsh's own functions, which need a terminal.
        stubs = "compdef() {}; _files() { print files }; _describe() { print -rl -- ${(P)4} }; "
        stubs += f'compadd() {{ [[ $1 == -S ]] && shift 2; shift; (( $# )) && print -rl -- "$@" }}; {COMMAND}'
        ask = f'{stubs}; source {path}; words=("$@"); CURRENT=$#; PREFIX=$words[-1]; _usdtkit'
        return run("zsh", "-f", "-c", ask, "zsh", *words)

    assert [line.partition(":")[0] for line in complete("usdtkit", "mem")] == NAMES
    assert "--show-allocs:show each block, not only the sums" in complete("usdtkit", "memleak", "--s")
    assert complete("usdtkit", "memleak", "x") == ["files"]
    assert "c:malloc" in complete("usdtkit", "trace", "c:mallo")
    assert complete("usdtkit", "memleak", "-p", named[:-1]) == [named]
    assert named in complete("usdtkit", "memleak", "-p", "")
    assert complete("usdtkit", "trace", "no-such-library-997:x") == ["files"]


def test_an_unknown_shell(capsys):
    assert cli.main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
