"""Completion, asked of the shells themselves."""

import os
import subprocess

import pytest

from usdtkit import cli

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


def run(*command):
    done = subprocess.run(command, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def bash(script):
    """bash(words…) -> what it offers for the last word."""
    path = script("bash")

    def complete(*words):
        ask = f'source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _usdtkit; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return run("bash", "--norc", "-c", ask, "bash", *words)

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
    assert str(os.getpid()) in bash("usdtkit", "memleak", "-p", "")
    assert bash("usdtkit", "nothing", "") == [""]


def test_fish(script):
    path = script("fish")

    def complete(line):
        offered = run("fish", "--no-config", "-c", f"source {path}; complete -C {line!r}")
        return dict(one.split("\t") if "\t" in one else (one, "") for one in offered)

    assert complete("usdtkit mem")["memleak"] == cli.command("memleak")[1].description
    assert set(NAMES) <= set(complete("usdtkit "))
    assert complete("usdtkit memleak --show") == {"--show-allocs": "show each block, not only the sums"}
    assert set(complete("usdtkit memleak --sort ")) == {"size", "count"}


def test_zsh(script):
    path = script("zsh")

    def complete(*words):
        # What it hands to zsh's own functions, which need a terminal.
        stubs = "compdef() {}; _files() { print files }; _describe() { print -rl -- ${(P)4} }"
        ask = f"{stubs}; source {path}; words=($@); CURRENT=$#; PREFIX=$words[-1]; _usdtkit"
        return run("zsh", "-f", "-c", ask, "zsh", *words)

    assert [line.partition(":")[0] for line in complete("usdtkit", "mem")] == NAMES
    assert "--show-allocs:show each block, not only the sums" in complete("usdtkit", "memleak", "--s")
    assert complete("usdtkit", "memleak", "x") == ["files"]


def test_an_unknown_shell(capsys):
    assert cli.main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
