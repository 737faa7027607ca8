"""Django under `usdtkit run`: the probes are in every process that its reloader starts."""

import os
import socket
import subprocess
import sys
import urllib.request

import pytest

from usdtkit import trace

pytestmark = pytest.mark.machine

STARTED = "Starting development server"


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_reloader(django_project, free_port, spawn, wait_for_line):
    address = f"127.0.0.1:{free_port}"
    run = [sys.executable, "-m", "usdtkit.run", "--with", "wsgi", "manage.py", "runserver", address]
    server = spawn(run, cwd=django_project, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stderr=subprocess.STDOUT)

    def ask(times):
        for _ in range(times):
            assert urllib.request.urlopen(f"http://{address}/fires/1").read() == b"1"

    wait_for_line(server, STARTED, timeout=60)
    with trace.Session(string_size=32) as session:
        done = session.usdt("wsgi:request__done").where(trace.arg("path") == "/fires/1").count("pid", "status")
        session.start()
        ask(500)
        declaration = django_project / "shop" / "probes.py"
        declaration.write_text(declaration.read_text().replace('number="u64"', 'number="u64", customer="str"'))
        views = django_project / "shop" / "views.py"
        views.write_text(views.read_text().replace("fired(number)", 'fired(number, "ada")'))
        wait_for_line(server, STARTED, timeout=60)
        ask(497)
        counts = done.read()
        summary = session.summary()
    assert sorted((status, count) for (_, status), count in counts.items()) == [(200, 497), (200, 500)]
    assert len({pid for pid, _ in counts} | {server.pid}) == 3
    assert summary.lost == 0
