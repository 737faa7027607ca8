"""Django under `usdtkit run`: its middleware, views, templates and queries, and each process of its reloader."""

import os
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from processes import eventually, unix_connection

from usdtkit import trace

pytestmark = pytest.mark.machine

ROOT = Path(__file__).parents[2]
STARTED = "development server at"


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
        # A request ends on the server just after its client has the answer.
        eventually(lambda: sum(done.read().values()), answer=997)
        counts = done.read()
        summary = session.summary()
    assert sorted((status, count) for (_, status), count in counts.items()) == [(200, 497), (200, 500)]
    assert len({pid for pid, _ in counts} | {server.pid}) == 3
    assert summary.lost == 0


@pytest.mark.parametrize(
    ("server", "up"),
    [
        (["waitress", "--unix-socket={}", "--threads=3", "shop.wsgi:application"], "Serving on"),
        (["uvicorn", "--no-access-log", "--uds", "{}", "shop.asgi:application"], "Uvicorn running"),
    ],
    ids=["wsgi", "asgi"],
)
def test_middleware_views_templates_and_queries(server, up, django_project, spawn, wait_for_line, tmp_path):
    address = tmp_path / "socket"
    words = [word.format(address) for word in server]
    run = [sys.executable, "-m", "usdtkit.run", "--with", "django,dbapi", "-m", *words]
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{django_project}", "PYTHONUNBUFFERED": "1"}
    process = spawn(run, cwd=django_project, env=variables, stderr=subprocess.STDOUT)
    wait_for_line(process, up, timeout=60)
    connection = unix_connection(address)

    def ask(method, path, times):
        for number in range(times):
            connection.request(method, f"{path}{number}")
            with connection.getresponse() as response:
                assert response.status in (200, 201, 403, 500)
                response.read()
            if response.status == 500:
                connection.close()

    with trace.Session(pid=process.pid, string_size=64) as session:
        for name in ("middleware", "view", "template"):
            session.usdt(f"django:{name}__start").emit("span", "parent_span", "name")
        failed = session.usdt("django:view__done").where(trace.arg("error") != "").count("error")
        queries = session.usdt("dbapi:query__done").count("query")
        session.start()
        while True:  # until the hooks are set
            ask("GET", "/shops/main/item-", 1)
            if any(event.name == "item.html" for event in session.drain()) and queries.read():
                break
        before = queries.read()
        ask("GET", "/shops/main/item-", 300)
        ask("POST", "/order/", 97)
        ask("GET", "/forbidden/", 13)
        ask("GET", "/fails/", 7)
        events = list(session.drain())
        after = queries.read()
        assert failed.read() == {("ValueError",): 7}
        assert session.summary().lost == 0
    spans = {event.span: event for event in events}
    around = Counter((event.name, spans[event.parent_span].name if event.parent_span else "") for event in events)
    assert around == {
        ("django.middleware.common.CommonMiddleware", ""): 417,
        ("shop.middleware.stamped", "django.middleware.common.CommonMiddleware"): 417,
        ("shop.middleware.Refusing", "shop.middleware.stamped"): 417,
        ("shop.views.item", "shop.middleware.Refusing"): 300,
        ("shop.views.order", "shop.middleware.Refusing"): 97,
        ("shop.views.fails", "shop.middleware.Refusing"): 7,
        ("item.html", "shop.views.item"): 300,
        ("", "shop.middleware.Refusing"): 7,  # Django's page about an exception
    }
    counted = Counter()
    for (query,), count in after.items():
        counted[" ".join(query.split()[:2])] += count - before.get((query,), 0)
    assert (counted["SELECT COUNT(*)"], counted["INSERT INTO"]) == (300, 97)
