import enum
import gc
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from commandline import NOBODY
from stubs import forget_providers

from usdtkit import Provider, argument
from usdtkit.testing import expect_probes, record_probes

ROOT = Path(__file__).parents[2]


class State(enum.Enum):
    NEW = "n"
    PAID = "p"


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


def test_what_fired_as_a_tracer_reads_it():
    shop = Provider("shop")
    order = shop.probe("order", id="u64", state=State, basket="json", limited=argument("json", limit=64))
    with expect_probes("shop:order") as fired:
        assert order.enabled
        order(42, State.PAID, {"a": [1]}, "x" * 100)
        late = shop.probe("late", id="u8")
        late(id=1)
    assert not order.enabled
    order("nobody", "looks", 1, 2)
    (first, second) = fired
    assert first.probe == "shop:order"
    assert first.arguments.pop("limited").startswith('{"$truncated":102,')
    assert first.arguments == {"id": 42, "state": "PAID", "basket": {"a": [1]}}
    assert second == ("shop:late", {"id": 1})
    assert fired.of("shop:l*") == [{"id": 1}]


def test_what_did_not_fire_is_said_with_what_did():
    shop = Provider("shop")
    order, _ = shop.probe("order"), shop.probe("done")
    with pytest.raises(AssertionError, match=r"shop:done did not fire; shop:\* fired 2 times, not 3 \(fired: shop:or"):
        with expect_probes("shop:order", "shop:done", {"shop:*": 3}):
            order()
            order()
    with pytest.raises(AssertionError, match="fired: nothing"):
        with expect_probes("shop:order"):
            pass
    with expect_probes({"shop:order": 2, "shop:done": 0}):
        order()
        order()


def test_a_name_that_no_probe_has():
    order = Provider("shop").probe("order__start")
    for expected in ("shop:order_start", {"shop:order_start": 0}):
        with pytest.raises(AssertionError, match=r"^there is no such probe: shop:order_start; near: shop:order__start"):
            with expect_probes(expected):
                order()
    with record_probes() as fired:
        pass
    assert fired.of("shop:*") == []
    with pytest.raises(AssertionError, match=r"^there is no such probe: shop:done$"):
        fired.of("shop:done")


def test_the_traceback_ends_in_the_test():
    """pytest leaves out frames of functions that say so; the others would hide the line of the test."""
    order = Provider("shop").probe("order")

    def visible(error):
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        return [frame.f_code.co_filename for frame in frames if "__tracebackhide__" not in frame.f_locals]

    with pytest.raises(AssertionError) as raised:
        with expect_probes("shop:order"):
            assert not order.fired
    assert visible(raised.value) == [__file__]
    with record_probes() as fired, pytest.raises(AssertionError) as raised:
        fired.of("nothing:here")
    assert visible(raised.value) == [__file__]


def test_an_exception_of_the_block_comes_first():
    with pytest.raises(KeyError):
        with expect_probes("shop:order"):
            raise KeyError


def test_wrong_calls_are_wrong_here_too():
    order = Provider("shop").probe("order", id="u8")
    with record_probes() as fired, pytest.raises(OverflowError):
        order(256)
    assert fired == []


def test_recordings_in_recordings():
    order = Provider("shop").probe("order", id="u8")
    with record_probes() as outer:
        order(1)
        with record_probes() as inner:
            order(2)
        order(3)
    order(4)
    assert [each["id"] for each in outer.of("shop:order")] == [1, 2, 3]
    assert [each["id"] for each in inner.of("shop:order")] == [2]


def test_all_threads():
    order = Provider("shop").probe("order", id="u64")
    with expect_probes({"shop:order": 4 * 997}) as fired:
        threads = [threading.Thread(target=lambda at=at: [order(at * 1000 + n) for n in range(997)]) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({each["id"] for each in fired.of("*")}) == 4 * 997


def test_a_provider_that_nobody_holds_any_more_but_its_probe():
    order = Provider("shop").probe("order", state=State)
    gc.collect()
    with record_probes() as fired:
        order(State.NEW)
    assert fired == [("shop:order", {"state": "NEW"})]


# In a process of its own, because integrations stay installed. Each is asked before, in and after a recording.
INTEGRATIONS = """
import asyncio, http.client, http.server, logging, sqlite3, threading
from usdtkit.instrument import asyncio as loops, dbapi, gc, http as client, logging as logs
from usdtkit.testing import record_probes

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *words):
        pass

def use():
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request("GET", "/a?secret")
    connection.getresponse().read()
    connection.close()
    sqlite3.connect(":memory:").execute("SELECT ?", (7,)).fetchall()
    logging.getLogger("app").error("message %d", 7)
    asyncio.run(asyncio.sleep(0))

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
logging.disable(logging.NOTSET); logging.getLogger("app").addHandler(logging.NullHandler())
for integration in (client, dbapi, logs, loops):
    integration.install()
originals = logging.Logger.handle, asyncio.Handle._run
use()
for _ in range(2):
    with record_probes() as fired:
        use()
    print(*sorted({probe for probe, _ in fired}))
    print(fired.of("http:request__done")[0]["path"], fired.of("dbapi:query__done")[0]["query"])
    print(fired.of("logging:record")[0]["message"], originals == (logging.Logger.handle, asyncio.Handle._run))
with record_probes() as fired:
    gc.install()  # while it is recorded
    __import__("gc").collect()
print(len(fired.of("gc:collection")) > 0)
server.shutdown()
"""


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_integrations_are_recorded(user, tmp_path):
    """Also without privileges, and where no directory can hold the files of the probes."""
    environment = os.environ | {"USDTKIT_DIR": str(tmp_path / "none" / "such"), "PYTHONWARNINGS": "ignore"}
    prefix = NOBODY if user == "nobody" and os.geteuid() == 0 else []
    ran = subprocess.run(
        [*prefix, sys.executable, "-c", INTEGRATIONS], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    *twice, last = ran.stdout.splitlines()
    assert twice[:3] == twice[3:]
    names = ["asyncio:callback", "dbapi:query__done", "dbapi:query__start", "http:request__done", "http:request__start"]
    assert {*names, "logging:record"} <= {*twice[0].split()}
    assert twice[1:3] == ["/a SELECT ?", "message 7 True"]
    assert last == "True"


def test_the_plugin_of_pytest(tmp_path):
    (tmp_path / "test_shop.py").write_text(
        "from usdtkit import Provider\n"
        "order = Provider('shop').probe('order', id='u64')\n"
        "def test_order(usdtkit_probes):\n"
        "    order(42)\n"
        "    assert usdtkit_probes.of('shop:order') == [{'id': 42}]\n"
        "def test_none():\n"
        "    assert not order.enabled\n"
        "def test_wrong(usdtkit_probes):\n"
        "    usdtkit_probes.of('shop:oder')\n"
    )
    # Other plugins are left out, because they take seconds to load. That pytest finds this one is in the metadata, but
    # not of a tree that is not installed.
    plugin = "usdtkit.pytest_plugin"
    assert f'[project.entry-points.pytest11]\nusdtkit = "{plugin}"\n' in (ROOT / "pyproject.toml").read_text()
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, f"--rootdir={tmp_path}", tmp_path]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert "1 failed, 2 passed" in ran.stdout
    assert "AssertionError: there is no such probe: shop:oder; near: shop:order" in ran.stdout
    assert "testing.py" not in ran.stdout
