"""What differs between versions of MySQL and MariaDB: signatures of functions, and the layout of a connection's THD.

Input: functions of a server's program. Output: where the functions that `queries` traces have their arguments, and a
`Layout`. Functions are told apart by their mangled names, which say the types of their arguments. Layouts are not kept
in tables: the program exports functions that return a member of the THD to plugins, and their code says where it is.
"""

from __future__ import annotations

from usdtkit.elf.accessors import member
from usdtkit.elf.image import Image
from usdtkit.files import OpenFile
from usdtkit.model import Function
from usdtkit.records import NamedTuple

SERVERS: tuple[str, ...] = ("mysqld", "mariadbd", "mysqld-debug")
"""The file names of the server's program."""
PROGRAMS = tuple(f"*/{name}" for name in SERVERS)
"""The same as globs of paths, by which servers are found that start later."""

# enum_server_command, of which MariaDB has the last; and two of our own, for what is no command of a client.
COM_QUERY, COM_STMT_PREPARE, COM_STMT_EXECUTE, COM_STMT_FETCH, COM_STMT_BULK_EXECUTE = 3, 22, 23, 28, 250
APPLY, NESTED = 1001, 1002
COMMANDS = {
    COM_QUERY: "query",
    COM_STMT_PREPARE: "prepare",
    COM_STMT_EXECUTE: "execute",
    COM_STMT_FETCH: "fetch",
    COM_STMT_BULK_EXECUTE: "bulk",
    APPLY: "apply",
    NESTED: "nested",
}
"""The names of commands: of the text protocol, of the binary one, and what replication and stored programs run."""
EXECUTIONS = (COM_QUERY, COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE)
STEPS = (COM_STMT_PREPARE, COM_STMT_FETCH)


class Log(NamedTuple):
    """general_log_write, which is called for each statement, also if nothing is logged.

    `symbols` are its mangled names. `command` and `query` say which arguments, counted from 1, hold the command and
    the text, which the text's length follows.
    """

    symbols: tuple[str, ...]
    command: int
    query: int


class Dispatch(NamedTuple):
    """dispatch_command, as some versions of the server declare it.

    `symbols` are its mangled names. `command`, `thd`, `query` and `length` say which arguments hold the command, the
    THD, the text of a statement and its length. If `length` is 0, `query` points to a struct that begins with the
    text's address and its length.
    """

    symbols: tuple[str, ...]
    command: int
    thd: int
    query: int
    length: int
    log: Log


# (enum_server_command, THD*, char* packet, uint length), and up to two bool: MariaDB, and MySQL up to 5.6.
MARIADB = Dispatch(
    tuple(f"_Z16dispatch_command19enum_server_commandP3THDPcj{more}" for more in ("b", "bb", "")),
    *(1, 2, 3, 4),
    Log(tuple(f"_Z17general_log_writeP3THD19enum_server_commandPKc{length}" for length in "mj"), command=2, query=3),
)
# (THD*, const COM_DATA*, enum_server_command): MySQL 5.7 and 8.
MYSQL = Dispatch(
    ("_Z16dispatch_commandP3THDPK8COM_DATA19enum_server_command",),
    *(3, 1, 2, 0),
    Log(("_ZN12Query_logger17general_log_writeEP3THD19enum_server_commandPKcm",), command=3, query=4),
)

# Prepared_statement::execute(String *, bool) of MariaDB, which the binary protocol and EXECUTE call.
EXECUTE = ("_ZN18Prepared_statement7executeEP6Stringb",)
# sp_instr_stmt::exec_core(THD *, uint *): a statement of a procedure, function, trigger or event.
EXEC_CORE = ("_ZN13sp_instr_stmt9exec_coreEP3THDPj",)
# Query_log_event::do_apply_event(…, const char *query, length): a statement of the binary log, in MariaDB and MySQL.
APPLY_QUERY = tuple(
    f"_ZN15Query_log_event14do_apply_eventE{type}" for type in ("P14rpl_group_infoPKcj", "PK14Relay_log_infoPKcm")
)


# Rows_log_event::do_apply_event(…): changes of rows in the binary log, which have no statement.
APPLY_ROWS = tuple(
    f"_ZN14Rows_log_event14do_apply_eventE{type}" for type in ("P14rpl_group_info", "PK14Relay_log_info")
)


class Layout(NamedTuple):
    """Where a THD of MariaDB has its members, in bytes: the current statement (an address, and behind it the length),
    the name of the database, and the addresses of the security context, which has the name of the `user`, and of the
    diagnostics, which have the number of the `error`.

    A Prepared_statement has its text at the same offset as a THD, because both begin with a Statement.
    """

    query: int
    database: int
    security: int
    user: int
    diagnostics: int
    error: int


USUAL_LAYOUT = Layout(query=0x68, database=0xA0, security=0x25F8, user=8, diagnostics=0x62E0, error=8)
"""That of MariaDB 10.11 on x86-64, for servers that start later where none runs yet. Others are told from it."""
# Each says this many of Layout's fields, in their order.
_ACCESSORS = (("thd_query_string", 1), ("thd_current_db", 1), ("thd_user_name", 2), ("thd_get_error_number", 2))
_layouts: dict[tuple[int, ...], Layout | None] = {}


def layout_of(function: Function) -> Layout | None:
    """The layout of the THD in the program of a function; None if the program does not say it, as MySQL does not."""
    file = function.file or OpenFile.open(function.path)
    if file.version not in _layouts:
        with Image(function.path, file) as image:
            offsets = [member(image, accessor) for accessor, _ in _ACCESSORS]
        is_known = [len(found) for found in offsets] == [length for _, length in _ACCESSORS]
        _layouts[file.version] = Layout(*(offset for found in offsets for offset in found)) if is_known else None
    return _layouts[file.version]
