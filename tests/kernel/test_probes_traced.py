"""Our own tracer reads what our own probes say, by the metadata in their file."""

import os
import shlex
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


OPTIONAL = """
import enum
from usdtkit import Provider

class State(enum.Enum):
    NEW = 1
    PAID = 2

shop = Provider("shop")
start = shop.probe("start", key="u64", name="str?", order_id="u64?", cost="f64?", state=State | None, flag="bool?")
done = shop.probe("done", key="u64", body="bytes?", left="i32?")
"""


def test_what_may_be_none_is_null_and_not_zero(environment):
    built = python(f"{OPTIONAL}print(shop.build())", environment).strip()
    fires = """
start(1, None, None, None, None, None); done(1, None, None)
start(2, "", 0, 0.0, State.NEW, False); done(2, b"", 0)
start(3, "ada", 2**64 - 1, -1.5, 2, True); done(3, b"a\\0b", -1)
"""
    with trace.Session(duration=20) as session:
        session.usdt("shop:start", built).emit()
        session.usdt("shop:done", built).emit()
        counts = session.usdt("shop:start", built).count("order_id", "state", "name")
        pair = session.pair(
            session.resolve(trace.usdt("shop:start", built)),
            session.resolve(trace.usdt("shop:done", built)),
            key="key",
            keep=("order_id", "cost", "name"),
        )
        pair.emit(order=pair.kept("order_id"), cost=pair.kept("cost"), name=pair.kept("name"), left=trace.arg("left"))
        zeros = session.usdt("shop:start", built).where(trace.arg("order_id") == 0).count()
        session.start()
        python(OPTIONAL + fires, environment)
        events = [event._asdict() for event in session.drain()]
        assert (session.summary().lost, session.summary().unreadable) == (0, 0)
        assert zeros.read() == {(): 2}
        assert counts.read() == {(None, None, None): 1, (0, "NEW", ""): 1, (2**64 - 1, "PAID", "ada"): 1}
    values = [tuple(each.values())[4:] for each in events]
    assert [each[1:] for each in values if len(each) == 6] == [
        (None, None, None, None, None),
        ("", 0, 0.0, "NEW", False),
        ("ada", 2**64 - 1, -1.5, "PAID", True),
    ]
    assert [each[1:] for each in values if len(each) == 3] == [(None, None), (b"", 0), (b"a\0b", -1)]
    assert [each for each in values if len(each) == 4] == [
        (None, None, None, None),
        (0, 0.0, "", 0),
        (2**64 - 1, -1.5, "ada", -1),
    ]


def test_the_tools_show_null(environment, capsys):
    built = python(f"{OPTIONAL}print(shop.build())", environment).strip()
    program = f"{OPTIONAL}start(1, None, None, None, None, None); start(2, 'a', 0, 0, 1, True)"
    command = shlex.join([sys.executable, "-c", program])
    assert main(["trace", f"u:{built}:shop:start", "-c", command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("key=")[2] for line in lines[1:]] == [
        "1 name=null order_id=null cost=null state=null flag=null",
        '2 name="a" order_id=0 cost=0 state="NEW" flag=true',
    ]
    assert main(["list", "-v", built]) == 0
    assert "    state: enum? (1 NEW, 2 PAID)" in capsys.readouterr().out.splitlines()


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
