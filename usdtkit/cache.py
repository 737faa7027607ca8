"""What took time to make, on disk: a key (a hash of all that it was made from) → its bytes.

The bytecode of programs is kept there (`usdtkit.bpf.compiler`), and tables by which callers are found
(`usdtkit.unwind.stored`). `usdtkit cache` shows both. Each entry is a file in the directory that $USDTKIT_CACHE names.
Without that variable it is the first of these that exists or can be made, and that nobody else can change:
$XDG_CACHE_HOME/usdtkit/bytecode, ~/.cache/usdtkit/bytecode, the same below the home directory of the password database,
/var/tmp/usdtkit.UID.

Programs that are read from there run in the kernel. Therefore a directory of ours that lies in another user's is
skipped, because that user could replace it: root with a user's HOME keeps its cache in root's own home. Where no
directory can be trusted, or the disk is full, there is no cache, and starts take longer. When the entries of a kind
have more bytes than its limit, those that were unused for longest are removed.
"""

# Every start imports this module, and importing pathlib takes long.
# ruff: noqa: PTH111

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from usdtkit.privatedirs import OwnDirectory, UntrustedError, open_directory, read_all
from usdtkit.records import NamedTuple

try:
    from _blake2 import blake2b  # the same as hashlib's, without loading OpenSSL for other hashes
except ImportError:
    from hashlib import blake2b


class Kind(NamedTuple):
    """A kind of entries: how their names end, and the most bytes of all of them and of one."""

    suffix: str
    limit: int
    largest: int


PROGRAMS = Kind("", 32 << 20, 4 << 20)
TABLES = Kind(".unwind", 64 << 20, 16 << 20)
_DIGITS = frozenset("0123456789abcdef")
_reported: set[str] = set()


def key_of(*parts: bytes) -> str:
    """The key of what is made from these bytes, one after the other."""
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def directory() -> str:
    """The directory of the entries, which may not exist yet; the last candidate where none can be used."""
    return _choose()[0]


def problem() -> str:
    """Why no directory can hold the cache; "" where one can."""
    return _choose()[1]


def _choose() -> tuple[str, str]:
    place = reason = ""
    for place in _places():
        try:
            open_directory(place, private=True).close()
            return place, ""
        except FileNotFoundError:  # it will be made
            return place, ""
        except UntrustedError as error:
            reason = error.message
        except OSError as error:
            reason = f"{place}: {error.strerror}"
    return place, reason


def load(key: str, kind: Kind = PROGRAMS) -> bytes | None:
    """The entry, or None where there is none or the directory cannot be trusted."""
    try:
        with _current() as place:
            descriptor, status = place.open(key + kind.suffix)
            try:
                content = read_all(descriptor, kind.largest)
                with suppress(OSError):  # a cache that we may only read works as well
                    os.utime(descriptor, ns=(time.time_ns(), status.st_mtime_ns))
            finally:
                os.close(descriptor)
    except (OSError, UntrustedError):
        return None
    return content if len(content) <= kind.largest else None


def store(key: str, content: bytes, kind: Kind = PROGRAMS) -> None:
    """Keep an entry. Readers and other writers see all of it or nothing."""
    with suppress(OSError, UntrustedError), _current(make=True) as place:
        with suppress(OSError):
            place.write(key + kind.suffix, content, 0o600)
        _prune(place, kind)


def entries(kind: Kind = PROGRAMS) -> list[tuple[str, os.stat_result]]:
    """The path and status of each entry, the last used first; none where the directory cannot be trusted."""
    try:
        with _current() as place:
            return [(f"{place.path}/{name}", status) for name, status in _entries(place, kind)]
    except (OSError, UntrustedError):
        return []


def clear() -> int:
    """Remove all entries of every kind, and return how many there were."""
    try:
        with _current() as place:
            return sum(place.remove(name) for kind in (PROGRAMS, TABLES) for name, _ in _entries(place, kind))
    except (OSError, UntrustedError):
        return 0


def _prune(place: OwnDirectory, kind: Kind) -> None:
    total = 0
    for name, status in _entries(place, kind):
        total += status.st_size
        if total > kind.limit:
            place.remove(name)


def _entries(place: OwnDirectory, kind: Kind) -> list[tuple[str, os.stat_result]]:
    """The names and status of files that `store` has written, the last used first."""
    kept = [(name, status) for name, status in place.entries() if _is_entry(name, status, kind)]
    return sorted(kept, key=lambda entry: -entry[1].st_atime_ns)


def _is_entry(name: str, status: os.stat_result, kind: Kind) -> bool:
    rest = "0"
    if name.startswith("."):  # as that of a file whose writer was killed, which has another dot before its end
        name, _, rest = name[1:].rpartition(".")
    key = name.removesuffix(kind.suffix)
    return (
        name == key + kind.suffix
        and all(part and _DIGITS.issuperset(part) for part in (key, rest))
        and stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and stat.S_IMODE(status.st_mode) == 0o600
    )


def _current(*, make: bool = False) -> OwnDirectory:
    """The directory, opened. UntrustedError or OSError where there is none."""
    problem: OSError | UntrustedError | None = None
    for place in _places():
        try:
            return _open(place, make=make)
        except FileNotFoundError:  # nothing was ever stored in it
            raise
        except (OSError, UntrustedError) as error:
            problem = error
    assert problem is not None  # there is always one place
    raise problem


def _open(place: str, *, make: bool = False) -> OwnDirectory:
    try:
        return open_directory(place, private=True, make=make)
    except UntrustedError as error:
        _tell(place, error)
        raise


def _tell(place: str, error: UntrustedError) -> None:
    """Report once why a directory is not used, as a warning where the user has chosen that directory."""
    if place in _reported:
        return
    _reported.add(place)
    import logging  # its import takes long

    level = logging.WARNING if os.environ.get("USDTKIT_CACHE") else logging.INFO
    logging.getLogger(__name__).log(
        level, "nothing is cached in %s, because other users could change them: %s", place, error.message
    )


def _places() -> Iterator[str]:
    """The directories where the cache may be, the best first."""
    if chosen := os.environ.get("USDTKIT_CACHE"):
        yield chosen
        return
    for base in _bases():
        if base.startswith("/"):  # a relative path would depend on the current directory
            yield f"{base}/usdtkit/bytecode"
    # It has no parent of its own, which another user could make first, and then exchange what is in it.
    yield f"/var/tmp/usdtkit.{os.geteuid()}"


def _bases() -> Iterator[str]:
    yield os.environ.get("XDG_CACHE_HOME", "")
    yield os.path.expanduser("~/.cache")
    import pwd  # it knows our home directory whatever $HOME says, and is rarely needed

    with suppress(KeyError):
        yield f"{pwd.getpwuid(os.geteuid()).pw_dir}/.cache"
