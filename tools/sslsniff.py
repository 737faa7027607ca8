"""Show what programs send and receive through TLS libraries, before it is encrypted.

Traces OpenSSL (SSL_read, SSL_write and their _ex forms), GnuTLS and NSS, in the system's libraries and in whatever runs
now and has a library in itself, such as Node; with -p, in the files of that process. The data is confidential, so
it is only read from the process with --content or --hexdump.

examples:
  usdtkit sslsniff                          lengths only
  usdtkit sslsniff -p 181 --content         what process 181 sends and receives
  usdtkit sslsniff --comm curl --hexdump
  usdtkit sslsniff --pycaller               which line of Python sent or received it
  usdtkit sslsniff -l --handshake           how long each call took, with handshakes
  usdtkit sslsniff --extra-lib openssl:/opt/app/libssl.so.1.1
"""

from collections.abc import Iterator
from typing import Any

from usdtkit.cli.arguments import CallerOptions, Spelling
from usdtkit.cli.options import option
from usdtkit.cli.tlsoptions import TlsLibraries, without
from usdtkit.cli.values import positive
from usdtkit.output.text import decoded, hexdump, paragraph
from usdtkit.providers import tls
from usdtkit.records import replace
from usdtkit.results import COMM, LATENCY_MS, PID, PYCALLER, TID, TIME, UID, Column, Row, Rows
from usdtkit.trace import Session

TOPIC = "names, logins and secrets"
SPELLING = Spelling(filters={"uid": "-u"})
HANDSHAKE = "HANDSHAKE"
DIRECTIONS = ("READ/RECV", "WRITE/SEND")
# The heading is a blank, because the data stands below its row.
CONTENT = Column("content", " ", "text", meaning="the data, with --content as text and with --hexdump in hexadecimal")
COLUMNS = (
    Column("function", "FUNC", width=12, meaning="what was done", values=(*DIRECTIONS, HANDSHAKE)),
    *(TIME, COMM, PID, Column("length", "LEN", "count", 6, "bytes of plain data; 0 of a handshake")),
    *(UID, TID, LATENCY_MS, PYCALLER, replace(CONTENT, optional=True)),
    Column("library", meaning="the library", values=tls.NAMES),
)


class Options(TlsLibraries, CallerOptions):
    """Options of `usdtkit sslsniff`."""

    exclusive = (("content", "hexdump"),)
    extra: bool = option("-x", "--extra", default=False, help="show the user and the thread too")
    latency: bool = option("-l", "--latency", default=False, help="show how long each call took")
    handshake: bool = option("--handshake", default=False, help="show handshakes too")
    content: bool = option("--content", default=False, help="show the data as text, secrets included")
    hexdump: bool = option("--hexdump", default=False, help="show the data in hexadecimal, secrets included")
    max_buffer_size: int = option(
        "--max-buffer-size",
        type=positive,
        default=4096,
        metavar="BYTES",
        help="show at most BYTES bytes of each call (default and maximum: 4096)",
    )
    no_openssl: bool = without("openssl", "-o")
    no_gnutls: bool = without("gnutls", "-g")
    no_nss: bool = without("nss", "-n")


def trace(session: Session, options: Options) -> Rows:
    """Trace transfers, and handshakes if they are asked for; a row for each."""
    size = options.max_buffer_size if options.content or options.hexdump else 0
    more = ["pycaller"] if options.pycaller else []
    tls.transfers(session, options.libraries, options.extra_lib, size=size).derive(*more).emit()
    if options.handshake:
        tls.handshakes(session, options.libraries, options.extra_lib).derive(*more).emit()
    handshakes = tls.Handshakes()

    def describe(event: Any) -> Row | None:
        if not tls.is_transfer(event):
            return _handshake(handshakes.describe(event), options)
        row = tls.describe(event)
        return {**row, "content": decoded(event.content)} if options.content else row

    return Rows(session, tuple(_columns(options)), describe)


def _columns(options: Options) -> Iterator[Column]:
    """The columns, without the headings of those that are not asked for."""
    shown = {"uid": options.extra, "tid": options.extra, "latency_ns": options.latency}
    for column in COLUMNS:
        if column.name == CONTENT.name:
            if options.hexdump:
                yield replace(CONTENT, type="bytes", show=hexdump)
            elif options.content:
                yield replace(CONTENT, show=paragraph)
        elif column is not PYCALLER or options.pycaller:
            yield column if shown.get(column.name, True) else replace(column, heading="")


def _handshake(row: Row | None, options: Options) -> Row | None:
    """A handshake that went well as a row like that of a transfer; None for all others."""
    if row is None or row["result"] != "ok":
        return None
    common = {name: row[name] for name in ("time_ns", "pid", "tid", "latency_ns", "comm", "uid", "library")}
    common |= {"pycaller": row["pycaller"]} if options.pycaller else {}
    empty = {"content": b""} if options.hexdump else {"content": ""} if options.content else {}
    return {**common, "length": 0, "function": HANDSHAKE, **empty}
