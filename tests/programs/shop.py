"""The example order service and its client as processes: pytest fixture `shop`."""

import json
import re
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from processes import read_until

EXAMPLE = Path(__file__).parents[2] / "examples" / "shop"


class Shop:
    """A running service: `pid`, `url`."""

    def __init__(self, process, url, spawn):
        self.pid = process.pid
        self.url = url
        self._spawn = spawn

    def request(self, path, body=None):
        """Status and decoded answer; with a body (bytes, or anything JSON can hold) it is a POST."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urlopen(Request(self.url + path, data)) as answer:
                return answer.status, json.load(answer)
        except HTTPError as answer:
            with answer:
                return answer.code, json.load(answer)

    def stats(self):
        """How often the service has fired each probe, by name."""
        return self.request("/stats")[1]

    def send(self, orders, threads=8):
        """Let the client send this many orders, and return how often each status came back, by status."""
        command = [sys.executable, EXAMPLE / "client.py", self.url, "--orders", orders, "--threads", threads]
        client = self._spawn(command)
        line = read_until(client, "sent", timeout=60)
        assert client.wait() == 0
        return {int(status): int(count) for count, status in re.findall(r"(\d+) × (\d+)", line)}


@pytest.fixture
def shop(spawn):
    process = spawn([sys.executable, EXAMPLE / "service.py"])
    yield Shop(process, read_until(process, "listening").split()[-1], spawn)
    process.terminate()
    assert process.wait(10) == 0
