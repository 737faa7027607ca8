"""Stacks of busy programs from Debian's packages reach the function that started the thread, and the others are counted
by what ended them."""

import os
import re
import sys
from collections import Counter
from pathlib import Path

from processes import eventually, unix_connection
from programs.load import STATEMENTS, Load

from usdtkit import trace
from usdtkit.trace import ustack

APPS = Path(__file__).parents[1] / "programs" / "web_apps"
REQUESTS = 997


def assert_whole(session, counts, at_least):
    """Of so many hits and more, at least 99.5 % have a whole stack; the account has the others, by reason."""
    ends = Counter()
    for (stack,), count in counts.read().items():
        ends[stack.native_end if stack else "none"] += count
    assert ends.total() >= at_least
    assert ends[""] >= 0.995 * ends.total(), ends


def test_malloc_in_flask_behind_gunicorn(spawn, tmp_path, wait_for_line):
    address = tmp_path / "socket"
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{address}", "flask_app:app"]
    server = spawn(command, cwd=APPS, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=None, stderr=-1)
    worker = int(re.search(r"pid: (\d+)", wait_for_line(server, "Booting worker", stream="stderr"))[1])

    def ask(number):
        connection = unix_connection(address)
        connection.request("GET", f"/order/{number}")
        connection.getresponse().read()
        connection.close()

    ask(1)  # what is only done once
    with trace.Session(pid=worker) as session:
        counts = session.uprobe("c", "malloc").count(stack=ustack)
        session.start()
        for number in range(REQUESTS):
            ask(number)
        session.detach()
        assert_whole(session, counts, REQUESTS)


def test_ssl_write_in_curl(tls, spawn):
    process = spawn(["curl", "--silent", "--insecure", "--output", os.devnull, "--config", "-"])
    eventually(lambda: "libssl" in Path(f"/proc/{process.pid}/maps").read_text())
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe("ssl", "SSL_write").count(stack=ustack)
        session.start()
        process.communicate(f'url = "{tls.url}[1-{REQUESTS}]"\n')
        assert process.returncode == 0
        assert_whole(session, counts, REQUESTS)


def test_pthread_mutex_lock_in_mariadbd(mariadb):
    with (
        trace.Session(pid=mariadb.pid) as session,
        Load(lambda: mariadb.query(*STATEMENTS), clients=3) as load,
    ):
        counts = session.uprobe("c", "pthread_mutex_lock").count(stack=ustack)
        session.start()
        load.go()
        eventually(lambda: session.summary().hits > 20 * REQUESTS)
        assert_whole(session, counts, 20 * REQUESTS)
