"""What README says about installing, done on bare machines: no compiler, no bcc, an externally managed Python."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
# Tools, the words with which they trace the 997 hits of programs/traced.py, and the column whose numbers add up to
# them, if each is not a row of its own.
TOOLS = {
    "funccount": (["bareshop:*"], "count"),
    "stackcount": (["bareshop:order__start"], "count"),
    "trace": (["bareshop:*"], None),
    "argdist": (["-C", "u::bareshop:order__start():u64:arg1"], "count"),
}


def install_lines():
    """The commands of README's section on installing, without their comments."""
    section = (ROOT / "README.md").read_text().partition("\n## Install\n")[2]
    block = section.partition("```\n")[2].partition("```")[0]
    return [line.partition("  #")[0].rstrip() for line in block.splitlines()]


@pytest.fixture(scope="module", params=install_lines(), ids=lambda line: line.partition(" ")[0])
def installed(request, machine):
    """The machine after one of these lines, and where the command is."""
    tool = request.param.partition(" ")[0]
    machine.run(request.param, user="ada")
    yield machine, "/home/ada/env/bin/usdtkit" if tool == "python3" else "/home/ada/.local/bin/usdtkit"
    machine.run(
        {"pipx": "pipx uninstall usdtkit", "uv": "uv tool uninstall usdtkit"}.get(tool, "rm -r ~/env"), user="ada"
    )


@pytest.fixture(scope="module")
def environment(machine):
    """Where the package is installed for an application, by root."""
    machine.run("python3 -m venv /opt/shop; /opt/shop/bin/pip install --quiet usdtkit")
    return machine


def test_the_lines_are_found():
    assert [line.partition(" ")[0] for line in install_lines()] == ["pipx", "uv", "python3"]


def test_the_systems_own_python_refuses_it(machine):
    """PEP 668: which is why README names environments."""
    done = machine.run("python3 -m venv /tmp/pip; /tmp/pip/bin/pip --python /usr/bin/python3 install usdtkit", code=1)
    assert "externally-managed-environment" in done.stderr


def test_the_hint_after_a_lack_of_privilege_is_a_line_that_sudo_runs(installed):
    machine, command = installed
    words = "gethostlatency --json --command 'getent ahosts localhost'"
    done = machine.run(f"{command} {words}", user="ada", code=3)
    [line] = re.findall(r": (sudo /.*)$", done.stderr, re.M)
    assert line.startswith(f"sudo {command} ")
    events = [json.loads(each) for each in machine.run(line, user="ada").stdout.splitlines() if each.startswith("{")]
    assert "localhost" in [event.get("host") for event in events]
    assert events[-1]["summary"]["lost"] == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_what_an_application_fires_arrives(environment, tool):
    words, sums = TOOLS[tool]
    command = ["/opt/shop/bin/python", "/dev/stdin", "/opt/shop/bin/usdtkit", tool, "--json", *words]
    done = environment.run(*command, input=(PROGRAMS / "traced.py").read_text(), stdin=None)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    rows, summary = [line for line in lines if "schema" not in line and "summary" not in line], lines[-1]["summary"]
    assert summary["lost"] == 0
    assert (sum(row[sums] for row in rows) if sums else len(rows)) == 997


def test_readmes_first_command_shows_probes(environment):
    [line] = re.findall(r"^(usdtkit list \S+)", (ROOT / "README.md").read_text(), re.M)
    assert len(environment.run(f"/opt/shop/bin/{line}").stdout.splitlines()) > 2


def test_doctor_finds_all_but_bcc(environment):
    done = environment.run("/opt/shop/bin/usdtkit", "doctor")
    assert re.findall(r"^(\S+) +missing", done.stdout, re.M) == ["compiler"]
    assert "tools came with usdtkit" in done.stdout
