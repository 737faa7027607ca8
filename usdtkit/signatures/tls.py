"""Which functions of which library carry the plain data of TLS, and which shake hands.

Sources: OpenSSL's SSL_read(3), SSL_do_handshake(3), SSL_get_error(3), GnuTLS's gnutls_record_recv(3) and
gnutls_handshake(3), NSPR's prio.h, NSS's ssl.h. Read by `usdtkit.cli.tls`. A function that the library calls for
another one of these is left out, or what goes through both would count twice.
"""

from typing import NamedTuple


class Library(NamedTuple):
    """A TLS library by its usual name; `library` is the short name of its file.

    `reads` and `writes` take (handle, buffer, size) and return how many bytes; `counted_…` return 1 and write the
    number where the fourth argument points. `handshake`, in the file `handshake_library`, takes the handle; it returns
    `done` at the end, one of `again` where it has to be called once more (or does not say), else it has failed. After
    `ends` the handle is no more that connection's.
    """

    name: str
    library: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    counted_reads: tuple[str, ...]
    counted_writes: tuple[str, ...]
    handshake_library: str
    handshake: tuple[str, ...]
    done: int
    again: tuple[int, ...]
    ends: tuple[str, ...]


LIBRARIES = (
    Library(
        "openssl",
        "ssl",
        reads=("SSL_read",),
        writes=("SSL_write",),
        counted_reads=("SSL_read_ex",),
        counted_writes=("SSL_write_ex",),
        handshake_library="ssl",
        # SSL_connect and SSL_accept call it.
        handshake=("SSL_do_handshake",),
        done=1,
        # What a return value below 1 means, only SSL_get_error knows.
        again=(-1, 0),
        ends=("SSL_free", "SSL_clear"),
    ),
    Library(
        "gnutls",
        "gnutls",
        reads=("gnutls_record_recv", "gnutls_record_recv_seq"),
        # gnutls_record_send calls it, since 3.6.3.
        writes=("gnutls_record_send2",),
        counted_reads=(),
        counted_writes=(),
        handshake_library="gnutls",
        handshake=("gnutls_handshake",),
        done=0,
        # GNUTLS_E_WARNING_ALERT_RECEIVED, GNUTLS_E_AGAIN, GNUTLS_E_GOT_APPLICATION_DATA, GNUTLS_E_INTERRUPTED
        again=(-16, -28, -38, -52),
        ends=("gnutls_deinit",),
    ),
    Library(
        "nss",
        "nspr4",
        reads=("PR_Read", "PR_Recv"),
        writes=("PR_Write", "PR_Send"),
        counted_reads=(),
        counted_writes=(),
        handshake_library="ssl3",
        handshake=("SSL_ForceHandshake",),
        done=0,
        again=(-1,),
        ends=(),
    ),
)

# Programs with OpenSSL in them that export everything (Node) show the state machine that every handshake goes through,
# also one that the first SSL_read or SSL_write begins.
OPENSSL_STATE_MACHINE = ("ossl_statem_connect", "ossl_statem_accept")
