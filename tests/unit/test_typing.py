"""What type checkers make of applications: `mypy --strict` accepts the examples of the documentation, and finds wrong
types, options and values."""

import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from usdtkit.argumenttypes import DECLARABLE
from usdtkit.probes import types
from usdtkit.probes.declaration import NOPS, ON_ERROR, STABILITIES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "probes.md", ROOT / "docs" / "api.md"]
# What the fragments of docs/probes.md take for granted.
GIVEN = """
import types as some_module
from usdtkit import Provider, u64
shop = Provider("shop")
order = object()
class SomeClass: ...
def expensive() -> str: return ""
def handle(order: object) -> None: ...
"""


def mypy(*paths):
    """{(file, line): [code of each error]} of these files."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    found = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(.*?):(\d+): error: .*\[([a-z-]+)\]", line):
            found.setdefault((Path(match[1]).name, int(match[2])), []).append(match[3])
    assert done.returncode == bool(found), done.stdout
    return found


def test_the_examples_of_the_documentation(tmp_path):
    for page in PAGES:
        text = page.read_text()
        for example in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
            line = text.count("\n", 0, example.start()) + 2
            given = GIVEN if page.stem == "probes" else ""
            (tmp_path / f"{page.stem}_{line}.py").write_text(given + example[1])
    files = sorted(tmp_path.iterdir())
    assert len(files) > 15
    assert mypy(*files) == {}


CALLS = """
import enum
from collections.abc import Mapping
from usdtkit import ArgumentType, Probe, Provider, argument, f64, u64

class State(enum.Enum):
    NEW = 1

shop = Provider("shop", nop="fast", on_error="drop")
order = shop.probe("order", id="u64", name="str", state=State, cost=argument("f64", unit="EUR"), doc="json")
shop.probe("page", {"doc": "str"}, doc="Why.", stability="stable", on_error="raise")
wrong_type = shop.probe("wrong", id="u46")  # arg-type
wrong_kind = shop.probe("wrong", id=int)  # arg-type
wrong_given = shop.probe("wrong", {"id": "integer"})  # dict-item
wrong_option = shop.probe("wrong", stability="sometimes")  # arg-type
wrong_nop = Provider("shop", nop="slow")  # arg-type
wrong_argument = argument("u46")  # arg-type
order(42, "ada", State.NEW, 1.5, {})
order.enable()  # attr-defined

@shop.define
def paid(order_id: u64, cost: f64, name: str) -> None: ...

paid(1, 2.5, "ada")
paid(1, cost=2.5, name="ada")
paid("1", 2.5, "ada")  # arg-type
paid(1, 2.5)  # call-arg
paid(1, 2.5, nam="ada")  # call-arg
checked: Probe[[int, float, str]] = paid

payment = shop.define_span("payment", id="u64")
shop.define_span("payment", id="u46")  # call-overload
with payment(42) as live, shop.span("other", anything=object()):
    print(live)

@shop.define_span
def delivery(order_id: u64, city: str) -> None: ...

with delivery(1, city="x"):
    pass
delivery("1", "x")  # arg-type
delivery(1)  # call-arg

async def use() -> None:
    async with delivery(1, "x"), shop.span("other"):
        pass

@shop.traced
def charge(card: int) -> str:
    return str(card)

@shop.traced(name="charges", card="u64")
async def charge_later(card: int) -> str:
    return str(card)

text: str = charge(1)
charge("1")  # arg-type
shop.traced(card="u46")  # call-overload

def declared(types: Mapping[str, ArgumentType]) -> Probe[...]:
    return shop.probe("made", types)
"""


def test_wrong_types_options_and_values_are_found(tmp_path):
    (tmp_path / "calls.py").write_text(CALLS)
    expected = {
        ("calls.py", number): [line.partition("  # ")[2]]
        for number, line in enumerate(CALLS.splitlines(), 1)
        if "  # " in line
    }
    assert len(expected) > 10
    assert mypy(tmp_path / "calls.py") == expected


@pytest.mark.parametrize(
    ("known", "listed"),
    [
        (types.TypeName, [name for name in DECLARABLE if not name.startswith("enum")]),
        (types.Nop, NOPS),
        (types.OnError, ON_ERROR),
        (types.Stability, STABILITIES),
    ],
)
def test_type_checkers_know_the_same_names(known, listed):
    assert list(typing.get_args(known)) == list(listed)
