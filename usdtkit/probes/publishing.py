"""Declared probes of a provider → probes that tracers can attach to.

Input: the probes that `provider` has declared so far. Output: each of them bound to a stub of a file, which `loading`
finds or makes and `usdtkit._probe` maps; or silent, if there can be no file. Each load puts the probes that are new
into one file.
"""

from __future__ import annotations

import sys
import warnings

from usdtkit.errors import UsageError, UsdtkitError
from usdtkit.probes.compiled import Probe, native
from usdtkit.probes.declaration import canonical
from usdtkit.probes.drops import ask, describe, of_the_program, warn
from usdtkit.probes.namesakes import has_given_way, spec_of
from usdtkit.probes.registry import turn

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from usdtkit.probes.loading import FileSpec

# Whether the kernel makes traced five-byte nops fast; None until it matters for the first time.
_optimises: bool | None = None


class Publisher:
    """Publishes the probes of one provider; `declared` is its dictionary of probes, which grows.

    `nop` is "safe" or "fast", and `file` the path of a file that was built ahead of time.
    """

    def __init__(
        self, name: str, declared: Mapping[str, Probe[...]], *, nop: str, file: str | None, ready_made: bool
    ) -> None:
        self._name = name
        self._declared = declared
        self._nop = nop
        self._file = file
        self._ready_made = ready_made
        # The number of probes, from the first, that are bound to a file, or silent because there can be none.
        self._settled = 0
        self._warned: set[str] = set()
        self.paths: list[str] = []
        """The files of the loaded probes."""
        self.unloaded = False
        """Whether all probes are silenced until the next load."""

    @property
    def given_way(self) -> bool:
        """Whether the probes are silent for good, because the program has declared some of the same names."""
        return self._ready_made and has_given_way(self._name)

    @property
    def probes(self) -> tuple[Probe[...], ...]:
        """All probes declared so far, in order."""
        # Through a list, which copies them in one step, whatever other threads declare meanwhile.
        return (*self._declared.values(),)

    @property
    def pending(self) -> tuple[Probe[...], ...]:
        """The probes that are not loaded yet."""
        return self.probes[self._settled :]

    def load(self) -> str:
        """Load the probes that are pending, and undo `unload`. Returns a warning, or an empty string.

        Raises UsdtkitError.
        """
        return self._settle(on_use=False)

    def load_on_use(self, stacklevel: int) -> None:
        """Load for the first use of a probe. Only warns if that fails, because the application must go on.

        `stacklevel` is that of the caller whom the warning is for, as `warnings.warn` counts from here.
        """
        if sys.is_finalizing():
            return  # the interpreter is clearing its modules, and no tracer could attach in time
        warning = self._settle(on_use=True)
        if warning and warning not in self._warned:
            self._warned.add(warning)
            # Two more levels: the lambda, and `ask`.
            warned = ask(
                lambda: warnings.warn(warning, RuntimeWarning, stacklevel=stacklevel + 2) is None, default=False
            )
            if not warned:
                warn(warning)  # -W error has turned the warning into an exception

    def unload(self) -> None:
        """Silence all probes. Files stay mapped, and tracers stay attached to them."""
        self.unloaded = True
        for probe in self.probes:
            native.silence(probe)

    def build(self, path: str | os.PathLike[str] | None) -> Path:
        """Write a file without loading it; see `Provider.build`."""
        from pathlib import Path

        probes = self.probes if path is not None else self.pending
        if not probes and path is None and self.paths and not self.paths[-1].startswith("/proc/"):
            return Path(self.paths[-1])
        if not probes:
            raise UsageError(
                f"provider {self._name} has no probes to write", hint="declare them first: provider.probe(…)"
            )
        return self._spec(probes).write(path)

    def _spec(self, probes: tuple[Probe[...], ...]) -> FileSpec:
        # Imported late, because it imports hashlib, and an import of usdtkit must be quick.
        from usdtkit.probes.loading import FileSpec

        text = canonical(*native.columns(probes))
        return FileSpec(self._name, text, lambda: list(map(spec_of, probes)), _best_nop(self._nop))

    def _settle(self, *, on_use: bool) -> str:
        """Load what is pending. Returns a warning, or an empty string. When a probe is used, no error of loading is
        raised."""
        current = turn()
        with current.lock:
            # The lock is recursive: a signal handler or an audit hook may fire a probe while this thread is loading.
            if current.loading or self.given_way:
                return ""
            if self.unloaded and not on_use:
                self.unloaded = False
                for number, probe in enumerate(self.probes):
                    if number >= self._settled or probe.path is not None:
                        native.unsilence(probe)
            if self._settled == len(self._declared):
                return ""
            current.loading = True
            # Probes that are declared from now on wait for the next load.
            pending = self.pending
            try:
                warning = self._load(pending)
            except BaseException as error:
                if of_the_program(error) is not None or (isinstance(error, UsdtkitError) and not on_use):
                    raise
                if not on_use:
                    raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {describe(error)}") from error
                if isinstance(error, RecursionError):
                    return ""  # the caller has used up the stack; a later use will load
                for probe in pending:
                    native.silence(probe)
                warning = f"{describe(error)}; the probes of {self._name} stay silent"
            finally:
                current.loading = False
            self._settled += len(pending)
            return warning

    def _load(self, pending: tuple[Probe[...], ...]) -> str:
        spec = self._spec(pending)
        if not spec.is_supported():
            for probe in pending:
                native.silence(probe)
            return "probes do nothing on this machine: usdtkit loads them on Linux on x86-64 or aarch64"
        if why := getattr(native, "WHY", ""):  # `silent`, which has no use for a file
            for probe in pending:
                native.silence(probe)
            return f"the probes of {self._name} cannot be loaded: {why}"
        path, stubs, warning = spec.provide(None if self.paths else self._file)
        try:
            native.load(path, pending, *stubs)
        except (OSError, MemoryError) as error:
            raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {error}") from error
        self.paths.append(path)
        return warning


def _best_nop(policy: str) -> str:
    """Return "fast" if it is wanted and the kernel has a use for it, else "safe". The kernel is asked once."""
    global _optimises
    if policy == "fast" and _optimises is None:
        _optimises = native.optimises()
    return "fast" if policy == "fast" and _optimises else "safe"
