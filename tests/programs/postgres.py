"""A real PostgreSQL server in a temporary directory, and its own client: pytest fixture `postgres`."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import serving, until_disconnected

BINARIES = Path("/usr/lib/postgresql/15/bin")


class Cluster:
    """A running server: `pid` of the postmaster, `psql` and its `environment`."""

    def __init__(self, pid, home):
        self.pid = pid
        self.psql = BINARIES / "psql"
        self.environment = os.environ | {"PGHOST": str(home), "PGUSER": "postgres", "PGDATABASE": "postgres"}

    def query(self, *statements, check=True, **more):
        """Send the statements over one connection, each by itself, and return the rows as lines of text."""
        text = "".join(f"{statement};\n" for statement in statements)
        stop = ["--set=ON_ERROR_STOP=1"] if check else []
        command = [self.psql, "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", *stop]
        environment = self.environment | {f"PG{name.upper()}": value for name, value in more.items()}
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=check, env=environment)
        self.settle()
        return done.stdout.splitlines()

    def bench(self, statement, times, protocol="prepared", clients=1, database="postgres"):
        """Send a statement so often over each connection, in one of pgbench's protocols; :number is a parameter."""
        how = f"--protocol={protocol}", f"--transactions={times}", f"--client={clients}"
        script = f"\\set number random(1, 9)\n{statement};\n"
        options = ["--no-vacuum", *how, "--file=/dev/stdin"]
        pipes = {"input": script, "text": True, "capture_output": True}
        environment = self.environment | {"PGDATABASE": database}
        subprocess.run([BINARIES / "pgbench", *options], check=True, env=environment, **pipes)
        self.settle()

    def settle(self):
        """Wait for the end of all connections: the server is still at a query when the client has the answer."""
        until_disconnected(f"{self.environment['PGHOST']}/.s.PGSQL.5432")


@contextmanager
def cluster(*before):
    """A new cluster and its server, which the command `before` starts."""
    # Not under pytest's own directory: that is closed to the user postgres.
    home = Path(tempfile.mkdtemp(prefix="usdtkit-postgres-"))
    become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    try:
        shutil.chown(home, "postgres", "postgres")
        install = [*become, BINARIES / "initdb", "--no-sync", "--auth=trust", f"--pgdata={home / 'data'}"]
        made = subprocess.run(install, capture_output=True, text=True, cwd=home, env=os.environ | {"LC_ALL": "C.UTF-8"})
        assert made.returncode == 0, made.stdout + made.stderr
        settings = ["listen_addresses=", "shared_preload_libraries=pg_stat_statements"]
        options = ["-D", home / "data", "-k", home, *(word for setting in settings for word in ("-c", setting))]
        serve = [*before, *become, BINARIES / "postgres", *options]
        with serving(serve, "ready to accept connections", cwd=home) as process:
            yield Cluster(process.pid, home)
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres():
    with cluster() as server:
        yield server
