"""Manual pages: of every command and tool, as roff that nothing in the help can break."""

import re
import subprocess

import pytest

from usdtkit import cli
from usdtkit.cli import man

NAMES = [*cli.COMMANDS, *cli.tool_names()]


def rendered(page):
    """What man shows; groff must have nothing to say about it."""
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-P-cbou", "-rLL=200n"], input=page, text=True, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_every_page(name):
    text = rendered(man.page(name))
    module, parser = cli.command(name)
    assert f"usdtkit-{name} - {module.__doc__.partition(chr(10))[0].rstrip('.')}" in text
    for title in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{title}\n" in text
    for action in parser._actions:
        for flag in action.option_strings:
            assert flag in text
    # Examples can be copied as they are.
    _, _, examples = (module.__doc__ or "").partition("examples:\n")
    for line in examples.splitlines():
        assert line.strip() in text
    for column in getattr(module, "COLUMNS", ()):
        assert column.heading in text
        assert column.name in text


def test_the_page_of_usdtkit_names_all():
    text = rendered(man.overview())
    assert {line.split()[0] for line in text.splitlines() if re.match(" {7}[^ ]", line)} >= set(NAMES)
    assert "no such target or probe" in text


def test_text_that_looks_like_roff():
    hostile = ".so /etc/passwd\n'\\fBbold\\fR `quoted' -x"
    page = "\n".join([".TH X 8", ".SH NAME", *man._text(hostile), *man._as_it_is(hostile.splitlines()), ""])
    assert rendered(page).count(".so /etc/passwd") == 2
    assert rendered(page).count("\\fBbold\\fR `quoted' -x") == 2


def test_all_pages_in_a_directory(tmp_path, capsys):
    assert cli.main(["man", "--all", str(tmp_path / "man8")]) == 0
    written = {path.name for path in (tmp_path / "man8").iterdir()}
    assert written == {"usdtkit.8", *(f"usdtkit-{name}.8" for name in NAMES)}
    assert cli.main(["man"]) == 0
    assert capsys.readouterr().out == (tmp_path / "man8" / "usdtkit.8").read_text()
    assert cli.main(["man", "list"]) == 0
    assert capsys.readouterr().out == (tmp_path / "man8" / "usdtkit-list.8").read_text()


def test_errors(tmp_path, capsys):
    assert cli.main(["man", "nothing"]) == 2
    assert cli.main(["man", "list", "--all", str(tmp_path)]) == 2
    (tmp_path / "file").write_text("")
    assert cli.main(["man", "--all", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err
