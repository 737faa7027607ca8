"""Our own tracer reads what our own probes say, by the metadata in their file."""

import os
import struct
import subprocess
import sys

import pytest

from usdtkit import trace
from usdtkit.cli import main

pytestmark = pytest.mark.machine

SHOP = """
import enum, sys
from usdtkit import Provider, argument

class State(enum.Enum):
    NEW = 1
    PAID = 2

shop = Provider("shop")
paid = shop.probe("paid", doc="Money has come.", stability="stable",
    order_id=argument("u64", doc="its number"), amount=argument("f32", unit="EUR"), share="f64", state=State,
    flag="bool", basket="json", body="bytes", more="i8")
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    return os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def built(environment):
    return python(f"{SHOP}print(shop.build())", environment).strip()


def python(script, environment):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_type_arrives_with_its_name(built, environment):
    fires = "paid(997, 0.1, 0.1, State.PAID, True, {'a': [1, 'ö']}, b'a\\0b', -128)\n"
    fires += "paid(2**64 - 1, -2, float('inf'), 'NEW', False, 'x' * 100, b'', 127)\n"
    with trace.Session(duration=20) as session:
        session.usdt("shop:paid", built).emit()
        session.start()
        python(SHOP + fires, environment)
        first, second = session.drain()
        assert session.summary().lost == 0
    nearest = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    assert (first.order_id, first.amount, first.share, first.state, first.flag) == (997, nearest, 0.1, "PAID", True)
    assert (first.basket, first.body, first.more) == ('{"a":[1,"ö"]}', b"a\0b", -128)
    assert (second.order_id, second.amount, second.share) == (2**64 - 1, -2.0, float("inf"))
    assert (second.state, second.flag, second.body, second.more) == ("NEW", False, b"", 127)


def test_an_enum_is_counted_by_name(built, environment):
    with trace.Session(duration=20) as session:
        counts = session.usdt("shop:paid", built).count("state")
        session.start()
        script = "for at in range(997): paid(at, 0, 0, 1 + at % 2, True, 0, b'', 0)"
        python(SHOP + script, environment)
        assert counts.read() == {("NEW",): 499, ("PAID",): 498}


def test_list_explains_arguments(built, capsys):
    assert main(["list", "-v", built]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"shop:paid {built}",
        "    Money has come.",
        "    stable",
        "    order_id: u64, its number",
        "    amount: f32 EUR",
        "    share: f64",
        "    state: enum (1 NEW, 2 PAID)",
        "    flag: bool",
        "    basket: json",
        "    body: bytes",
        "    more: i8",
    ]
