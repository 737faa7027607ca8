"""The arguments of the probes of MySQL up to 5.7 and MariaDB, which builds with DTrace have.

Read through `usdtkit.signatures.known_arguments`; `usdtkit.providers.mysql` traces them. `status` is 0 for success.
`exec_type` is 0 for a query of its own, 1 for a prepared statement, 2 for a cursor, and 3 within a stored procedure.
"""

_QUERY = (("query", "str"),)
_STATUS = (("status", "i32"),)
_TABLE = (("database", "str"), ("table", "str"))
_ROWS = (("status", "i32"), ("rows", "u64"))
_CHANGES = (("status", "i32"), ("rows_matched", "u64"), ("rows_changed", "u64"))
_CLIENT = (("query", "str"), ("connection_id", "u64"), ("database", "str"), ("user", "str"), ("host", "str"))

PROBES: dict[str, tuple[tuple[str, str], ...]] = {
    "connection__start": (("connection_id", "u64"), ("user", "str"), ("host", "str")),
    "connection__done": (("status", "i32"), ("connection_id", "u64")),
    "command__start": (("connection_id", "u64"), ("command", "i32"), ("user", "str"), ("host", "str")),
    "command__done": _STATUS,
    "query__start": _CLIENT,
    "query__done": _STATUS,
    "query__parse__start": _QUERY,
    "query__parse__done": _STATUS,
    "query__cache__hit": (("query", "str"), ("rows", "u64")),
    "query__cache__miss": _QUERY,
    "query__exec__start": (*_CLIENT, ("exec_type", "i32")),
    "query__exec__done": _STATUS,
    "insert__row__start": _TABLE,
    "insert__row__done": _STATUS,
    "update__row__start": _TABLE,
    "update__row__done": _STATUS,
    "delete__row__start": _TABLE,
    "delete__row__done": _STATUS,
    "read__row__start": (*_TABLE, ("scan", "i32")),
    "read__row__done": _STATUS,
    "index__read__row__start": _TABLE,
    "index__read__row__done": _STATUS,
    "handler__rdlock__start": _TABLE,
    "handler__rdlock__done": _STATUS,
    "handler__wrlock__start": _TABLE,
    "handler__wrlock__done": _STATUS,
    "handler__unlock__start": _TABLE,
    "handler__unlock__done": _STATUS,
    "filesort__start": _TABLE,
    "filesort__done": _ROWS,
    "select__start": _QUERY,
    "select__done": _ROWS,
    "insert__start": _QUERY,
    "insert__done": _ROWS,
    "insert__select__start": _QUERY,
    "insert__select__done": _ROWS,
    "update__start": _QUERY,
    "update__done": _CHANGES,
    "multi__update__start": _QUERY,
    "multi__update__done": _CHANGES,
    "delete__start": _QUERY,
    "delete__done": _ROWS,
    "multi__delete__start": _QUERY,
    "multi__delete__done": _ROWS,
    "net__read__start": (),
    "net__read__done": (("status", "i32"), ("bytes_read", "u64")),
    "net__write__start": (("bytes_to_write", "u64"),),
    "net__write__done": _STATUS,
}
