"""Libraries of TLS: which functions carry plain data, which shake hands, and which files have them.

Input: a session, the names of libraries, and files that a user has named. Output: each file with the functions in it,
as one `Resolved` for the sources of `usdtkit.providers.tls`. Sources of the table: OpenSSL's SSL_read(3),
SSL_do_handshake(3) and SSL_get_error(3), GnuTLS's gnutls_record_recv(3) and gnutls_handshake(3), NSPR's prio.h, NSS's
ssl.h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from usdtkit import targets
from usdtkit.errors import NotFoundError, UsageError, one_of
from usdtkit.model import Function, UserPlace
from usdtkit.records import NamedTuple
from usdtkit.trace import Resolved, Session, Sought, uprobe

Names = tuple[str, ...]


class Library(NamedTuple):
    """A TLS library by its usual name; `file` is the short name of its file.

    `reads` and `writes` take (handle, buffer, size), and return a number of bytes. `counted_reads` and `counted_writes`
    return 1, and write the number where their fourth argument points. If one of these functions calls another, only the
    inner one is listed, because data that goes through both would be counted twice.

    `handshake`, in the file `handshake_file`, takes the handle. It returns `done` when the handshake is complete, and
    one of `retry` when it has to be called again (or when the value does not say); any other value is a failure.
    `state_machine` are functions that every handshake goes through, in files that show them. After one of `releases`,
    the handle no longer belongs to the connection.
    """

    name: str
    file: str
    reads: Names
    writes: Names
    counted_reads: Names
    counted_writes: Names
    handshake_file: str
    handshake: Names
    state_machine: Names
    done: int
    retry: tuple[int, ...]
    releases: Names

    @property
    def transfers(self) -> Names:
        """The functions that carry plain data."""
        return (*self.reads, *self.writes, *self.counted_reads, *self.counted_writes)

    @property
    def handshakes(self) -> Names:
        """The functions that carry a handshake on, or end its handle."""
        return (*self.handshake, *self.state_machine, *self.releases)


LIBRARIES = (
    Library(
        "openssl",
        "ssl",
        reads=("SSL_read",),
        writes=("SSL_write",),
        counted_reads=("SSL_read_ex",),
        counted_writes=("SSL_write_ex",),
        handshake_file="ssl",
        # SSL_connect and SSL_accept call it.
        handshake=("SSL_do_handshake",),
        # Programs that have OpenSSL in them and export everything, such as Node, show its state machine. It also sees
        # the handshakes that the first SSL_read or SSL_write begins.
        state_machine=("ossl_statem_connect", "ossl_statem_accept"),
        done=1,
        # Only SSL_get_error knows what a return value below 1 means.
        retry=(-1, 0),
        releases=("SSL_free", "SSL_clear"),
    ),
    Library(
        "gnutls",
        "gnutls",
        reads=("gnutls_record_recv", "gnutls_record_recv_seq"),
        # gnutls_record_send calls it, since 3.6.3.
        writes=("gnutls_record_send2",),
        counted_reads=(),
        counted_writes=(),
        handshake_file="gnutls",
        handshake=("gnutls_handshake",),
        state_machine=(),
        done=0,
        # GNUTLS_E_WARNING_ALERT_RECEIVED, GNUTLS_E_AGAIN, GNUTLS_E_GOT_APPLICATION_DATA, GNUTLS_E_INTERRUPTED
        retry=(-16, -28, -38, -52),
        releases=("gnutls_deinit",),
    ),
    Library(
        "nss",
        "nspr4",
        reads=("PR_Read", "PR_Recv"),
        writes=("PR_Write", "PR_Send"),
        counted_reads=(),
        counted_writes=(),
        handshake_file="ssl3",
        handshake=("SSL_ForceHandshake",),
        state_machine=(),
        done=0,
        retry=(-1,),
        releases=(),
    ),
)
NAMES = tuple(library.name for library in LIBRARIES)
"""The names of the libraries that are known: openssl, gnutls and nss."""
BY_FUNCTION = {name: library for library in LIBRARIES for name in (*library.transfers, *library.handshakes)}


class LibraryFile(NamedTuple):
    """A file with a TLS library in it, and those of the library's functions that were looked for and that it has."""

    library: Library
    functions: Sequence[Function]


def find_files(
    session: Session,
    libraries: Sequence[str],
    extra: Sequence[tuple[str, str]],
    *,
    handshakes: bool,
) -> list[LibraryFile]:
    """The files with the functions that transfer data, or with those that shake hands.

    These are the files that the session's processes map and, if it traces all processes or a command, also the
    libraries that the loader would find, and the command. `extra` are (library, path) of further files. NotFoundError
    is raised if a file of `extra` does not have the functions, or if no file has. An offline session has no files.
    """
    unknown = [name for name in (*libraries, *(name for name, _ in extra)) if name not in NAMES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a known TLS library", hint=one_of(unknown[0], NAMES))
    if session.offline:
        return []
    chosen = {
        library: library.handshakes if handshakes else library.transfers
        for library in LIBRARIES
        if library.name in libraries
    }
    files = []
    for functions in targets.defining([name for names in chosen.values() for name in names], pids=session.search_pids):
        for library, names in chosen.items():
            if matching := [function for function in functions if function.name in names]:
                files.append(LibraryFile(library, matching))
    seen = {file.functions[0].file for file in files}
    for library, path, required in _candidates(session, list(chosen), extra, handshakes=handshakes):
        try:
            functions = targets.find_functions(path, chosen[library])
        except NotFoundError:
            if required:
                raise
            continue
        if functions[0].file not in seen:
            seen.add(functions[0].file)
            files.append(LibraryFile(library, functions))
    if not files:
        nobody = "no such process" if session.search_pids else "nothing here"
        raise NotFoundError(
            f"{nobody} has the functions of {' or '.join(libraries)}",
            hint="--extra-lib openssl:PATH names a file that has them; in a stripped program they cannot be found",
        )
    return files


def _candidates(
    session: Session, chosen: Sequence[Library], extra: Sequence[tuple[str, str]], *, handshakes: bool
) -> list[tuple[Library, str, bool]]:
    """(library, name or path of a file that may have it, whether it must have it)."""
    candidates = [(library, path, True) for library in chosen for name, path in extra if name == library.name]
    if not session.search_pids:
        candidates += [(library, library.handshake_file if handshakes else library.file, False) for library in chosen]
        candidates += [(library, word, False) for library in chosen for word in session.command[:1]]
    return candidates


def together(files: Sequence[LibraryFile], choose: Callable[[Library, Set[str]], Names]) -> Resolved:
    """The chosen functions of all files as one source. The program is the same, whichever libraries there are.

    `choose` is given a library and the names of the functions that one file has, and returns some of the names.
    """
    places: list[UserPlace] = []
    for library, functions in files:
        names = choose(library, {function.name for function in functions})
        if matching := [function for function in functions if function.name in names]:
            places += uprobe(matching[0].path, *names).of(matching).user_places
    # In files that come later they are found by the libraries' names.
    specs = [
        uprobe(file, *names)
        for library in dict.fromkeys(library for library, _ in files)
        for file in dict.fromkeys((library.file, library.handshake_file))
        if (names := choose(library, set()))
    ]
    return Resolved("the functions of TLS libraries", "entry", (), tuple(places), sought=Sought(specs))
