"""The command's own part: finding commands and tools, options, errors into words and exit codes."""

import ast
import errno
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import cli, errors
from usdtkit.cli import elsewhere, tracing, values
from usdtkit.cli.schema import of_name
from usdtkit.tools import trace
from usdtkit.version import VERSION

NAMES = [*cli.COMMANDS, *cli.tool_names()]


def test_the_overview_names_every_command_and_tool(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert {"doctor", "list", "trace", "gethostlatency", "mysqld_qslower", "pamtrace"} <= set(NAMES)
    for name in NAMES:
        assert f"\n  {name} " in out
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize("name", cli.tool_names())
def test_every_tool_has_a_topic_and_a_schema(name):
    assert importlib.import_module(f"usdtkit.tools.{name}").TOPIC
    columns = importlib.import_module(f"usdtkit.tools.{name}").COLUMNS
    assert {column.name for column in columns if not column.table_only} <= of_name(name)["properties"].keys()
    assert all(column.meaning for column in columns)


@pytest.mark.parametrize("name", NAMES)
def test_every_help_has_a_summary_and_its_options(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: usdtkit {name} ")
    # Those write files or text, or become another program.
    assert "--json" in out or name in ("bundle", "completion", "man", "provider", "run")
    if name != "doctor":
        assert f"\n  usdtkit {name}" in out  # an example
    assert max(len(line) for line in out.splitlines()) <= 120


def test_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"usdtkit {VERSION}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsdtkitError, 1),
        (errors.ElfError, 1),
        (errors.UsageError, 2),
        (errors.PrivilegeError, 3),
        (errors.NotFoundError, 4),
        (errors.UnsupportedError, 5),
    ],
)
def test_errors_become_two_lines_and_an_exit_code(error, code, monkeypatch, capsys):
    def fail(arguments):
        raise error("this \x1bwent wrong", hint="do that\nthen")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["list"]) == code
    assert capsys.readouterr() == ("", "usdtkit: this \\x1bwent wrong\n  hint: do that\\x0athen\n")


def test_a_bug_is_no_error_of_the_users(monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["list"])


def test_the_streams_are_put_back():
    before = sys.stderr
    cli.main(["no such command"])
    assert sys.stderr is before


def test_an_option_that_does_not_exist(capsys):
    assert cli.main(["doctor", "--nonsense"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "usdtkit: unrecognized arguments: --nonsense\n  hint: usdtkit doctor -h shows the options\n"


@pytest.mark.parametrize(
    ("words", "message", "near"),
    [
        ("dbstat mysql --intervall 5", "unrecognized arguments: --intervall", "--interval or --intervals"),
        ("dbslower --treshold=3 mysql", "unrecognized arguments: --treshold=3", "--threshold"),
        ("dbslower --treshold 3 mysql", "unrecognized arguments: --treshold", "--threshold"),
        ("provider build a --ouput b", "unrecognized arguments: --ouput b", "--output"),
        ("dbslower mysq", "argument engine: invalid choice: 'mysq'", "mysql"),
        ("memleak --sort siez", "argument --sort: invalid choice: 'siez'", "size"),
        ("run --with djano app.py", "there are no ready-made probes for 'djano'", "django"),
        ("ustat --sort methd", "argument -S/--sort: invalid choice: 'methd'", "method"),
        ("dbslwer mysql", "no command or tool is called 'dbslwer'", "dbslower"),
        ("docter", "no command or tool is called 'docter'", "doctor"),
    ],
)
def test_what_is_mistyped_is_suggested(words, message, near, capsys):
    assert cli.main(words.split()) == 2
    first, hint = capsys.readouterr().err.splitlines()
    assert first == f"usdtkit: {message}"
    assert hint.startswith(f"  hint: did you mean {near}? ")


@pytest.mark.parametrize(("word", "engine"), [("mariadb", "mysql"), ("postgresql", "postgres"), ("mysql", "mysql")])
def test_engines_by_other_names(word, engine):
    assert cli.command("dbslower")[1].parse_args([word]).engine == engine
    assert cli.command("dbstat")[1].parse_args([word]).engine == engine


def test_options_of_a_command_that_is_started_are_its_own():
    parser = cli.command("trace")[1]
    assert parser.parse_args(["c:open", "-c", "sh --version"]).command == ["sh", "--version"]
    assert parser.parse_args(["--", "--nonsense"]).spec == ["--nonsense"]


@pytest.mark.parametrize(
    ("is_terminal", "more", "delay"), [(True, [], 0.05), (True, ["--output", "lines"], 0.2), (False, [], 0.2)]
)
def test_events_gather_longer_where_nobody_reads_them_now(is_terminal, more, delay, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    parsed = cli.command("trace")[1].parse_args(["c:open", *more])
    assert tracing.session_arguments(trace, trace.Options.of(parsed), parsed)["delay"] == delay


def test_tools_that_others_have_are_answered(capsys):
    """Each tool of Debian's bcc and bpftrace is one here, or the error says what does that job."""
    theirs = [path.name for path in Path("/usr/sbin").glob("*-bpfcc")] + [
        path.name for path in Path("/usr/sbin").glob("*.bt")
    ]
    assert len(theirs) > 120
    for name in theirs:
        plain = name.removesuffix("-bpfcc").removesuffix(".bt")
        try:
            cli.command(plain)
        except errors.UsageError as error:
            assert error.message.startswith(f"usdtkit has no {plain}")
            assert error.hint
        else:
            assert plain in NAMES or plain in cli.ALIASES or cli._language_of(plain)
            with pytest.raises(errors.UsageError):
                cli.command(name)


def test_what_is_suggested_instead_of_them_works():
    for hint in elsewhere.HERE.values():
        for words in re.findall(r"usdtkit (\w+(?: '[^']*')*)", hint):
            name, *specs = shlex.split(words)
            assert name in NAMES
            if specs:
                assert cli.main([name, *specs, "-p", str(os.getpid()), "--explain"]) == 0


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (values.tid, "42", 42),
        (values.process, "42", 42),
        (values.processes, "42,postgres", [42, "postgres"]),
        (values.count, "0", 0),
        (values.seconds, "0.5", 0.5),
        (values.milliseconds, "0", 0.0),
        (values.milliseconds, "1e3", 1000.0),
    ],
)
def test_values_of_options(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize("parse", [values.tid, values.count, values.seconds, values.milliseconds])
@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e300", "²"])
def test_values_that_are_none(parse, text):
    with pytest.raises(values.argparse.ArgumentTypeError, match=f"^{text!r} is not"):
        parse(text)


@pytest.mark.parametrize("text", ["", "0", "42,", ",postgres", "1,-2", "9" * 20])
def test_words_that_name_no_process(text):
    with pytest.raises(values.argparse.ArgumentTypeError, match=r"^'.*' is not a process ID"):
        values.processes(text)


def test_a_language_before_a_pid_is_no_program(capsys):
    """The manuals of bcc's tools have it there."""
    assert cli.main(["ucalls", "java", "1234"]) == 2
    assert "'java' is a language: write -l java before the PID" in capsys.readouterr().err
    assert cli.main(["ucalls", "java", "5", "-p", "0"]) == 2
    assert "'0' is not a process ID" in capsys.readouterr().err


def test_tools_use_public_names_only():
    """What a tool of ours may import, anybody's may: none of bpf, elf and the compiled modules."""
    for path in (Path(cli.__file__).parents[1] / "tools").glob("*.py"):
        imported = {
            alias if isinstance(node, ast.Import) else node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in [name.name for name in node.names]
        }
        closed = ("usdtkit.bpf", "usdtkit.elf", "usdtkit._")
        assert not [name for name in imported if name.startswith(closed)], path


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPIPE, errno.ENOSPC])
def test_an_error_without_a_file_is_not_blamed_on_the_output(number, monkeypatch, capsys):
    def fail():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("usdtkit.scan.running_pids", fail)
    assert cli.main(["list"]) == 1
    said = capsys.readouterr()
    assert said.err == f"usdtkit: in usdtkit.scan.all_mapped: {os.strerror(number)}\n"
    assert said.out == ""


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_an_error_of_the_output_is_one(options, tmp_path):
    command = [sys.executable, *options, "-m", "usdtkit"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipes = {"stderr": subprocess.PIPE, "env": environment, "text": True}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--version"], stdout=full, **pipes)
    assert (done.returncode, done.stderr) == (1, "usdtkit: standard output: No space left on device\n")
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run([*command, "--version"], stdout=theirs, **pipes)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "file").open("w") as file:
        done = subprocess.run([*command, "-h"], stdout=file, **pipes)
    assert (tmp_path / "file").read_text().startswith("usage: usdtkit COMMAND")
