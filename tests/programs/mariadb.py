"""A real MariaDB server in a temporary directory, and its own client: pytest fixture `mariadb`, and others."""

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from processes import serving, until_disconnected


class Server:
    """A running mariadbd: `pid`, `binary`, `socket`."""

    def __init__(self, pid, socket):
        self.pid = pid
        self.socket = socket
        self.binary = Path(f"/proc/{pid}/exe").resolve()

    def query(self, *statements):
        """Send the statements over one connection, each as one COM_QUERY, and return the rows as lines of text."""
        text = "".join(f"{statement};\n" for statement in statements)
        command = ["mariadb", "--no-defaults", f"--socket={self.socket}", "--user=root"]
        options = ["--batch", "--skip-column-names"]
        done = subprocess.run([*command, *options], input=text, text=True, capture_output=True, check=True)
        self.settle()
        return done.stdout.splitlines()

    def settle(self):
        """Wait until the server has ended all connections: it is still at a query when the client has the answer."""
        until_disconnected(self.socket)


@contextlib.contextmanager
def server(*options, program="mariadbd"):
    """A server with options of its own, which listens only at its socket unless they say otherwise; or another
    `program`."""
    # Not under pytest's own directory: that is closed to the user mysql.
    home = Path(tempfile.mkdtemp(prefix="usdtkit-mariadb-"))
    data, socket = home / "data", home / "socket"
    try:
        shutil.chown(home, "mysql", "mysql")
        # A server that starts removes the temporary tables of every other that has the same directory for them.
        shared = ["--no-defaults", "--user=mysql", f"--datadir={data}", f"--tmpdir={home}"]
        install = ["mariadb-install-db", *shared, "--skip-test-db"]
        made = subprocess.run([*install, "--auth-root-authentication-method=normal"], capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
        serve = [program, *shared, f"--socket={socket}"]
        serve += [*(options or ["--skip-networking"]), f"--pid-file={home / 'pid'}"]
        with serving(serve, "ready for connections") as process:  # which it says once it listens on the socket
            yield Server(process.pid, socket)
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def mariadb():
    with server() as running:
        yield running
