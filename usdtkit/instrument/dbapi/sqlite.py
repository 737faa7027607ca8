"""sqlite3, whose classes are written in C. aiosqlite, Django and SQLAlchemy are seen through it.

Input: the module _sqlite3. Output: all that its connections and cursors execute, commit and fetch, also those of
factories. A statement that sqlite3 itself adds has no probe: the BEGIN before a change, the COMMIT before a script.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from usdtkit.instrument.dbapi.operations import connect, fetch, in_transaction, query, transaction
from usdtkit.instrument.measuring import Place, wrap_all

_SYSTEM = "sqlite"


def _where(_: Any, connection: Any, *args: Any, **keywords: Any) -> tuple[str, str]:
    database = os.fsdecode(args[0] if args else keywords["database"])
    return "", database.partition("?")[0] if database.startswith("file:") else database


def _active(connection: Any) -> bool:
    return bool(connection.in_transaction)


def _exit(connection: Any, error: Any, *_: Any) -> str:
    """Say what leaving `with connection:` does. In SQLite's own autocommit mode, from 3.12 on, that is nothing."""
    if not connection.in_transaction or getattr(connection, "autocommit", False) is True:
        return ""
    return "commit" if error is None else "rollback"


def _wrap(module: ModuleType) -> list[str]:
    cursor, connection = module.Cursor, module.Connection
    places = [Place(cursor, name, query(_SYSTEM)) for name in ("execute", "executemany", "executescript")]
    if sys.version_info >= (3, 11):  # before, and for scripts still, these call the cursor's methods
        places += [Place(connection, name, query(_SYSTEM)) for name in ("execute", "executemany")]
    places += [Place(cursor, name, fetch(_SYSTEM, name)) for name in ("fetchone", "fetchmany", "fetchall", "__next__")]
    places += [
        Place(connection, "__init__", connect(_SYSTEM, _where)),
        Place(connection, "commit", transaction(_SYSTEM, in_transaction("commit", _active))),
        Place(connection, "rollback", transaction(_SYSTEM, in_transaction("rollback", _active))),
        Place(connection, "__exit__", transaction(_SYSTEM, _exit)),
    ]
    return wrap_all(places)


LIBRARIES = {"sqlite3": _wrap}
