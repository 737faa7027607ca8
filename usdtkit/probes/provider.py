"""A provider: declares typed probes and makes them visible to tracers, all that are new at a time in one file.

Input: the declarations of the application. Output: `Probe` objects that fire. Between them: `declaration` checks,
`image` makes the bytes, `files` stores them, `usdtkit._probe` maps them.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from usdtkit import _probe
from usdtkit._probe import Probe
from usdtkit.errors import UnsupportedError, UsageError, UsdtkitError
from usdtkit.probes.declaration import check_arguments, check_doc, check_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Probe", "Provider"]


class _Turn:
    """Whose turn it is to load: one thread of the process at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = False


_turn = _Turn()


def _renew_turn() -> None:
    global _turn
    _turn = _Turn()


# A fork while another thread loads would leave the child a turn that nobody ends.
os.register_at_fork(after_in_child=_renew_turn)


class Provider:
    """A named group of probes, as tracers see it: the `shop` of `shop:order__start`.

    Names are ASCII letters, digits, `_` and `-`, at most 64 of them. A double underscore in a probe's name is what
    DTrace prints as a hyphen, and the custom for `begin__end` pairs.
    """

    def __init__(self, name: str) -> None:
        self._name = check_name("a provider", name)
        self._probes: dict[str, Probe] = {}
        self._pending: dict[str, Probe] = {}
        self._files: list[Path | str] = []

    def __repr__(self) -> str:
        return f"<Provider {self._name}: {len(self._probes)} probes, {len(self._pending)} not loaded>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._name

    @property
    def probes(self) -> tuple[Probe, ...]:
        """All probes declared so far, in order."""
        return tuple(self._probes.values())

    @property
    def files(self) -> tuple[Path | str, ...]:
        """The files that carry the loaded probes; a str, /proc/PID/fd/N, for one that exists in memory only."""
        return tuple(self._files)

    def probe(self, name: str, /, *, doc: str = "", **arguments: str) -> Probe:
        """Declare a probe; its arguments are `name="type"`, in order, at most 12 operands in all.

        Types: u8 u16 u32 u64 i8 i16 i32 i64 bool, f64 (tracers get its IEEE bits as an integer), str (they get a
        pointer to UTF-8 with a NUL behind it), bytes (any contiguous buffer; two operands, pointer and length).
        Raises UsageError. A probe declared after a load goes into a further file at the next one.
        """
        check_name("a probe", name)
        what = f"probe {self._name}:{name}"
        if name in self._probes:
            raise UsageError(
                f"{what} is declared twice", hint="declare each probe once, at module level, and import it"
            )
        checked = check_arguments(what, arguments)
        probe = Probe(self._name, name, check_doc(what, doc), checked, self._load_on_use)
        self._probes[name] = self._pending[name] = probe
        return probe

    def load(self) -> None:
        """Make every probe declared so far visible to tracers.

        Where no directory can hold the file it lives in memory, with a warning: only tools that are given the pid find
        it then. Elsewhere than on Linux on x86-64 the probes stay silent, with a warning. Raises UsdtkitError.
        """
        if warning := self._load_pending():
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def build(self) -> Path:
        """Write the file of the probes not yet loaded, load nothing, and return its path; without such, the last file.

        Tracers can attach to the path before any process uses it. Raises UsdtkitError, also where no directory can hold
        it.
        """
        from usdtkit.probes import files, image

        if pending := dict(self._pending):
            machine = _machine()
            if machine not in image.MACHINES:
                raise UnsupportedError("probe files have no meaning on this system: only on Linux on x86-64 or aarch64")
            content = image.build(self._name, list(pending.values()), machine=machine)
            return files.store(image.file_name(self._name, content), content)
        if self._files and not isinstance(self._files[-1], str):
            return self._files[-1]
        raise UsageError(f"provider {self._name} has no probes to write", hint="declare them first: provider.probe(…)")

    def _load_on_use(self) -> None:
        """Load for the first use of a probe; tracing that cannot be had must not stop the application."""
        if sys.is_finalizing():
            return  # the interpreter takes its modules to pieces, and no tracer could attach in time
        try:
            warning = self._load_pending()
        except UsdtkitError as error:
            self._silence(dict(self._pending))
            warning = f"{error.message}; the probes of {self._name} stay silent"
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def _load_pending(self) -> str:
        """Load what is pending and return a warning, or an empty string."""
        turn = _turn
        with turn.lock:
            # Taken already: a signal handler or an audit hook fires a probe in the midst of this thread's own load.
            if turn.taken or not self._pending:
                return ""
            turn.taken = True
            try:
                return self._load(dict(self._pending))
            finally:
                turn.taken = False

    def _load(self, pending: dict[str, Probe]) -> str:
        if _machine() != "x86_64":
            self._silence(pending)
            return "probes do nothing on this machine: usdtkit loads them on Linux on x86-64"
        # Not before it is needed, so that the import of usdtkit is quick: these bring hashlib, json and pathlib.
        from usdtkit.probes import files, image

        content = image.build(self._name, list(pending.values()), machine="x86_64")
        name = image.file_name(self._name, content)
        path: Path | str
        warning = ""
        try:
            path = files.store(name, content)
        except UnsupportedError as error:
            path = files.store_in_memory(name, content)
            warning = f"{error.message}; the probes of {self._name} are in memory only, at {path}. {error.hint}"
        symbols = {image.symbol_name(self._name, probe.name): probe for probe in pending.values()}
        try:
            _probe.load(str(path), symbols, image.MACHINES["x86_64"].code[0])
        except OSError as error:
            raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {error}") from error
        self._files.append(path)
        self._forget(pending)
        return warning

    def _silence(self, pending: dict[str, Probe]) -> None:
        for probe in pending.values():
            _probe.silence(probe)
        self._forget(pending)

    def _forget(self, pending: dict[str, Probe]) -> None:
        # Others may have been declared meanwhile: those stay.
        for name in pending:
            self._pending.pop(name, None)


def _machine() -> str:
    """Return the architecture as the kernel calls it, or "" where provider files have no meaning."""
    return os.uname().machine if sys.platform == "linux" and sys.maxsize > 2**32 else ""
