"""A real Redis server in a temporary directory: pytest fixture `redis_server`."""

import shutil
import tempfile
from pathlib import Path

import pytest
from processes import serving


@pytest.fixture(scope="session")
def redis_server():
    """The path of the socket of a server that keeps nothing."""
    home = Path(tempfile.mkdtemp(prefix="usdtkit-redis-"))
    try:
        where = ["--unixsocket", home / "socket", "--port", "0", "--dir", home, "--save", "", "--appendonly", "no"]
        with serving(["sh", "-c", 'exec redis-server "$@" >&2', "sh", *where], "ready to accept connections"):
            yield home / "socket"
    finally:
        shutil.rmtree(home)
