"""What a program asks of SQL databases: the probes of the provider `dbapi`, whichever driver it uses.

Input: the classes of the drivers that `install` knows, one module here for each family, or any cursor class given to
`cursor_class`. Output: queries, connections, transactions and rows that are fetched; `operations` has the
probes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from usdtkit.instrument.dbapi import asyncpg, mysql, postgresql, sqlite
from usdtkit.instrument.dbapi.operations import provider, query
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.measuring import measured

__all__ = ["cursor_class", "install"]


@cache
def install() -> None:
    """Publish what the drivers do that this process has imported or will import. A second call does nothing.

    Their classes are changed only while somebody traces, also those that are written in C. So connections and cursors
    that exist already have probes, and so have those of the program's own subclasses.
    """
    provider.load()
    for module in (sqlite, postgresql, asyncpg, mysql):
        for name, wrap in module.LIBRARIES.items():
            when_imported("dbapi", name, wrap)


def cursor_class(base: type, system: str) -> type:
    """Return a subclass of a driver's cursor class with probes, for drivers whose connections take a cursor class."""
    operation = query(system)

    def begin(*args: Any, **keywords: Any) -> Any:
        return operation.begin(*args, **keywords) if any(probe.enabled for probe in operation.probes) else None

    wrap = measured(begin)
    methods = {name: wrap(getattr(base, name)) for name in ("execute", "executemany")}
    return type(base.__name__, (base,), {"__slots__": (), **methods})
