"""Work for servers: clients that send the same again and again while something is measured."""

import threading
from concurrent.futures import ThreadPoolExecutor

STATEMENTS = (
    "USE mysql",
    "CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(100))",
    *(f"INSERT INTO t SELECT seq, MD5(seq) FROM seq_{100 * n + 1}_to_{100 * n + 97}" for n in range(5)),
    "SELECT b, COUNT(*) FROM t GROUP BY LEFT(b, 2) ORDER BY 2 DESC LIMIT 3",
    "PREPARE p FROM 'SELECT SUM(LENGTH(b)) FROM t WHERE a > ?'",
    "EXECUTE p USING 7",
    "DROP TABLE t",
)
"""For MariaDB, over one connection."""


class Load:
    """Clients that call `query` again and again, from `go` until the end of the block."""

    def __init__(self, query, clients):
        self._query, self._clients = query, clients
        self._over, self._pool, self._running = threading.Event(), ThreadPoolExecutor(clients), []

    def __enter__(self):
        return self

    def go(self):
        self._running = [self._pool.submit(self._repeat) for _ in range(self._clients)]

    def __exit__(self, *error):
        self._over.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()

    def _repeat(self):
        while not self._over.is_set():
            self._query()
