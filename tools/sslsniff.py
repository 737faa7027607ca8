"""Show what goes through TLS libraries in plain: who reads and writes how much.

Traces OpenSSL (SSL_read, SSL_write and their _ex forms), GnuTLS and NSS, in the system's libraries and in whatever runs
now and has them in it, such as Node; with -p in the files of that process. What is read and written is not looked at,
unless --content or --hexdump asks for it: it is what the encryption was for.

examples:
  usdtkit sslsniff                          lengths only
  usdtkit sslsniff -p 181 --content         what process 181 says and hears
  usdtkit sslsniff --comm curl --hexdump
  usdtkit sslsniff -l --handshake           how long each call took, with handshakes
  usdtkit sslsniff --extra-lib openssl:/opt/app/libssl.so.1.1
"""

import argparse
from collections.abc import Mapping
from typing import Any

from usdtkit.cli.arguments import add_filter_options, add_session_options
from usdtkit.cli.run import follow, narrow, new_session
from usdtkit.cli.tlsoptions import add_library_options, chosen_libraries
from usdtkit.cli.values import positive
from usdtkit.output.report import COMM, LATENCY_MS, PID, TIME, Column
from usdtkit.output.text import decoded, hexdump, paragraph
from usdtkit.providers import tls

TOPIC = "names, logins and secrets"

COLUMNS = [Column("FUNC", "function", 12), TIME, COMM, PID, Column("LEN", "length", 6, right=True)]
EXTRA = [Column("UID", "uid", 7, right=True), Column("TID", "tid", 7, right=True)]


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit sslsniff`."""
    parser.add_argument("-x", "--extra", action="store_true", help="user and thread too")
    parser.add_argument("-l", "--latency", action="store_true", help="how long each call took")
    parser.add_argument("--handshake", action="store_true", help="handshakes too")
    content = parser.add_mutually_exclusive_group()
    content.add_argument("--content", action="store_true", help="what was read and written, as text: secrets included")
    content.add_argument("--hexdump", action="store_true", help="the same in hexadecimal")
    parser.add_argument(
        "--max-buffer-size", type=positive, default=4096, metavar="BYTES", help="so much of it (4096, and no more)"
    )
    add_library_options(parser, "ogn")
    add_filter_options(parser, uid="-u")
    add_session_options(parser)


def run(options: argparse.Namespace) -> int:
    """Trace until told to stop."""
    shown = options.content or options.hexdump
    columns = [*COLUMNS, *(EXTRA if options.extra else []), *([LATENCY_MS] if options.latency else [])]
    if shown:
        columns.append(Column("", "content", 0, hexdump if options.hexdump else paragraph))
    empty = {"content": b"" if options.hexdump else ""} if shown else {}
    handshakes = tls.Handshakes()

    def describe(event: Any) -> Mapping[str, Any] | None:
        if not tls.is_transfer(event):
            row = handshakes.describe(event)
            if row is None or row["result"] != "ok":
                return None
            done = {name: row[name] for name in ("time_ns", "pid", "tid", "latency_ns", "comm", "uid")}
            return {**done, "length": 0, "function": "HANDSHAKE", "library": row["library"], **empty}
        row = tls.describe(event)
        if options.content:
            row["content"] = decoded(event.content)
        return row

    with new_session(options) as session:
        narrow(session, options)
        libraries, extra = chosen_libraries(options)
        tls.transfers(session, libraries, extra, size=options.max_buffer_size if shown else 0).emit()
        if options.handshake:
            tls.handshakes(session, libraries, extra).emit()
        return follow(session, options, "sslsniff", columns, describe=describe)
