"""Options of tools as Python code makes them: what a record refuses, and that it does not change."""

import pytest

from usdtkit.cli import main
from usdtkit.errors import UsageError
from usdtkit.tools import dbslower, funcslower, gethostlatency, libcalls, uflow, ustat


@pytest.mark.parametrize(
    "tool, values, message",
    [
        (dbslower, {}, "needs engine"),
        (dbslower, {"engine": "mysql", "raw": True}, "has no raw"),
        (dbslower, {"engine": "oracle"}, "engine cannot be 'oracle'"),
        (dbslower, {"engine": None}, "engine cannot be None"),
        (gethostlatency, {"min_ms": None}, "min_ms cannot be None"),
        (libcalls, {"function": "open"}, "function has several values"),
        (libcalls, {"function": 1}, "function has several values"),
        (funcslower, {"functions": ["c:open"], "arguments": 7}, "arguments cannot be 7"),
    ],
)
def test_values_that_an_option_cannot_have(tool, values, message):
    with pytest.raises(UsageError, match=message) as raised:
        tool.Options(**values)
    assert raised.value.hint


def test_options_do_not_change():
    names = ["open", "read"]
    options = libcalls.Options(function=names)
    names.append("write")
    assert options.function == ("open", "read") and options.interval is None
    with pytest.raises(AttributeError, match="function"):
        options.function = ()
    with pytest.raises(AttributeError, match="interval"):
        del options.interval
    assert uflow.Options(language=None).language is None


def test_options_that_exclude_each_other_in_a_class_and_in_those_it_derives_from(capsys):
    for flags in (["-m", "1", "-u", "1"], ["--native", "--python"]):
        assert main(["funcslower", "c:open", *flags]) == 2
        assert "not allowed with" in capsys.readouterr().err


def test_a_command_line_in_a_table_is_one_printable_word():
    assert ustat.shortened("/usr/bin/\x1b[31mruby\n app.rb") == r"\x1b[31mruby\x0a"[:16]
