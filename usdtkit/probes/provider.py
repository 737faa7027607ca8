"""A provider: declares typed probes and makes them visible to tracers, all that are new at a time in one file.

Input: the declarations of the application. Output: `Probe` objects that fire. Between them: `declaration` checks,
`image` makes the bytes, `files` stores them, `usdtkit._probe` maps them; `spans` and `traced` stand on top.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, final, overload
from weakref import WeakValueDictionary

from usdtkit.errors import UsageError, UsdtkitError
from usdtkit.probes.declaration import (
    MAX_DOC,
    MAX_NAME,
    ON_ERROR,
    STABILITIES,
    ProbeSpec,
    canonical,
    check_choice,
    check_name,
    check_text,
    known_shape,
    shape_of,
)

try:
    from usdtkit import _probe
    from usdtkit._probe import Probe
except ImportError:
    if not TYPE_CHECKING:
        from usdtkit.probes import silent as _probe
        from usdtkit.probes.silent import Probe

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from usdtkit.probes.declaration import ArgumentSpec
    from usdtkit.probes.loading import Wanted
    from usdtkit.probes.spans import LiveSpan, Span

__all__ = ["Probe", "Provider"]

_P = ParamSpec("_P")
_Traced = TypeVar("_Traced", bound="Callable[..., Any] | ModuleType")
Recorder = Callable[["Probe[...]", tuple[Any, ...]], None]
NOPS = ("safe", "fast")
# The fields of a ProbeSpec, the canonical text of its arguments, and the probe.
_Declared = tuple[str, str, "tuple[ArgumentSpec, ...]", str, str, "Probe[...]"]


class _Turn:
    """Whose turn it is to declare or to load: one thread of the process at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = False


_turn = _Turn()
# Of this process (and interpreter), by name: a provider that two modules declare is one.
_providers: WeakValueDictionary[str, Provider] = WeakValueDictionary()
_recorder: Recorder | None = None
_optimises: bool | None = None


def _renew_turn() -> None:
    global _turn
    _turn = _Turn()


# A fork while another thread loads would leave the child a turn that nobody ends.
os.register_at_fork(after_in_child=_renew_turn)


@final
class Provider:
    """A named group of probes, as tracers see it: the `shop` of `shop:order__start`.

    Names are ASCII letters, digits, `_` and `-`, at most 64 of them. A double underscore in a probe's name is what
    DTrace prints as a hyphen, and the custom for `begin__end` pairs. In one process there is one provider of a name:
    another `Provider("shop")` is the same object.

    `nop="fast"` lays sites out so that kernels which can (x86-64, Linux 6.18) make a fire less than half as expensive
    while traced; where the kernel cannot, they are as ever. `on_error="drop"` counts wrong calls in `Probe.dropped`,
    which otherwise raise while somebody traces. `file` is one that `usdtkit provider build` made ahead of time.
    """

    _name: str

    def __new__(
        cls,
        name: str,
        *,
        nop: str | None = None,
        on_error: str | None = None,
        file: str | os.PathLike[str] | None = None,
    ) -> Provider:
        check_name("a provider", name)
        what = f"of provider {name}"
        if nop is not None:
            check_choice(f"the nop {what}", nop, NOPS)
        if on_error is not None:
            check_choice(f"on_error {what}", on_error, ON_ERROR)
        chosen = {"nop": nop, "on_error": on_error, "file": None if file is None else os.fspath(file)}
        with _turn.lock:
            provider = _providers.get(name)
            if provider is None:
                provider = super().__new__(cls)
                provider._begin(name, chosen)
                _providers[name] = provider
            for option, value in chosen.items():
                if value is not None and value != provider._options[option]:
                    raise UsageError(
                        f"provider {name} exists with {option}={provider._options[option]!r}, not {value!r}",
                        hint="give its options where it is made first, and nowhere else",
                    )
        return provider

    def _begin(self, name: str, options: Mapping[str, Any]) -> None:
        self._name = name
        self._options = {"nop": options["nop"] or "safe", "on_error": options["on_error"] or "raise"}
        self._options["file"] = options["file"]
        self._nop, self._on_error = self._options["nop"], self._options["on_error"]
        self._declared: dict[str, _Declared] = {}
        self._loader = self._load_on_use
        self._pending: dict[str, Probe[...]] = {}
        self._unloaded = False
        self._said: set[str] = set()
        self._files: list[Path | str] = []
        self._spans: dict[str, Span] = {}
        self._traced_names: dict[str, object] = {}

    def __repr__(self) -> str:
        return f"<Provider {self._name}: {len(self._declared)} probes, {len(self._pending)} not loaded>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._name

    @property
    def probes(self) -> tuple[Probe[...], ...]:
        """All probes declared so far, in order."""
        return tuple([declared[5] for declared in self._declared.copy().values()])

    @property
    def specs(self) -> tuple[ProbeSpec, ...]:
        """What was declared of each, in the same order."""
        return tuple([ProbeSpec(*declared[:4]) for declared in self._declared.copy().values()])

    @property
    def files(self) -> tuple[Path | str, ...]:
        """The files that carry the loaded probes; a str, /proc/PID/fd/N, for one that exists in memory only."""
        return tuple(self._files)

    def probe(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        /,
        *,
        doc: str = "",
        stability: str = "",
        on_error: str | None = None,
        **more: object,
    ) -> Probe[...]:
        """Declare a probe; its arguments are `name="type"`, in order, at most 12 operands in all.

        Types: u8 u16 u32 u64 i8 i16 i32 i64 bool; f32 f64 (tracers get the IEEE bits as an integer); str (they get a
        pointer to UTF-8 with a NUL behind it); bytes (any contiguous buffer; two operands, pointer and length); json
        (any object, as a str); an `enum.Enum` (its number); or `argument(type, unit=…, doc=…)`. Arguments that are
        called as one of the keywords here go into a mapping, `arguments`. `stability` is private, unstable, evolving
        or stable, for people.

        The same declaration again gives the same probe; another one under its name raises UsageError. A probe that is
        declared after a load goes into a further file at the next one.
        """
        # Quick for those that are right, as most are: an application's start waits for this.
        if not (isinstance(name, str) and name.isidentifier() and name.isascii() and len(name) <= MAX_NAME):
            check_name("a probe", name)
        if arguments:
            more = {**arguments, **more}
        specs, pairs, converters, text = known_shape(more) or shape_of(f"probe {self._name}:{name}", more)
        if doc != "":
            check_text(f"the doc of probe {self._name}:{name}", doc, MAX_DOC)
        if stability != "":
            check_choice(f"the stability of probe {self._name}:{name}", stability, STABILITIES)
        if on_error is not None:
            check_choice(f"on_error of probe {self._name}:{name}", on_error, ON_ERROR)
        declared = self._declared.get(name)
        if declared is None:
            drops = (on_error or self._on_error) == "drop"
            probe: Probe[...] = Probe(self._name, name, doc, pairs, converters, self._loader, drops)
            # In one step, so that of two threads with the same declaration both get the first one's.
            declared = self._declared.setdefault(name, (name, doc, specs, stability, text, probe))
            if declared[5] is probe:
                self._pending[name] = probe
                if self._unloaded:
                    _probe.silence(probe)
                if _recorder is not None:
                    _probe.set_recorder(probe, _recorder)
                return probe
        if declared[:4] != (name, doc, specs, stability):
            raise UsageError(
                f"probe {self._name}:{name} is declared twice, and differently",
                hint="declare each probe once, at module level, and import it",
            )
        return declared[5]

    def define(self, function: Callable[_P, object], /) -> Probe[_P]:
        """Declare a probe by a function, which is never called: name, arguments, types and doc are the function's.

            @shop.define
            def order__start(order_id: u64, customer: str): "An order arrives."

        Annotations are the types of `usdtkit` (u64, f32, …), int (i64), float (f64), bool, str, bytes, object (json),
        an Enum, or Annotated[int, argument(…)]. Raises UsageError.
        """
        from usdtkit.probes.signature import arguments_of

        name = check_name("a probe", getattr(function, "__name__", None))
        probe = self.probe(name, arguments_of(function), doc=(function.__doc__ or "").strip())
        return cast("Probe[_P]", probe)

    # Spans

    def define_span(
        self, name: str, arguments: Mapping[str, object] | None = None, /, *, doc: str = "", **more: object
    ) -> Span:
        """Declare NAME__start and NAME__done, for a stretch of work; the types as for `probe`, at most 11 operands.

        Start has `span` (u64, unique on this machine) before the arguments, done has `span`, `latency_ns` and `error`,
        the name of the exception that left the block, or "".
        """
        from usdtkit.probes.spans import define

        return define(self, name, {**(arguments or {}), **more}, doc)

    def span(self, name: str, /, **values: object) -> LiveSpan:
        """A stretch of work, `with` or `async with`: NAME__start when it begins, NAME__done when it ends, however.

        The types are those of `define_span`, else what the first values are: bool, int (i64), float (f64), str,
        bytes, all others json.
        """
        span = self._spans.get(name)
        if span is None:
            from usdtkit.probes.spans import define_by_values

            # What is declared on the way must not change the file of what was declared at the start: tracers know it.
            self._load_on_use()
            span = define_by_values(self, name, values)
        return span(**values)

    def keep_span(self, span: Span) -> Span:
        """For `spans`: the span of this name, the one that was there first."""
        return self._spans.setdefault(span.name, span)

    def keep_traced(self, name: str, what: object) -> bool:
        """For `traced`: whether the span `name` is that of `what`, and nothing else's."""
        return self._traced_names.setdefault(name, what) == what

    @overload
    def traced(self, thing: _Traced, /) -> _Traced: ...
    @overload
    def traced(
        self, /, *, name: str | None = None, arguments: Mapping[str, object] | None = None, **more: object
    ) -> Callable[[_Traced], _Traced]: ...
    def traced(
        self,
        thing: Any = None,
        /,
        *,
        name: str | None = None,
        arguments: Mapping[str, object] | None = None,
        **more: object,
    ) -> Any:
        """Make a span of each call of a function, coroutine or generator, or of all public ones of a class or module.

        As a decorator bare, or `@shop.traced(name="order", order_id="u64")`: the parameters that are named become
        arguments of NAME__start. The name is the function's qualified one, with `_` for what probes cannot be called.
        """
        from usdtkit.probes.traced import trace

        wanted = {**(arguments or {}), **more}
        if thing is None:
            return lambda thing: trace(self, thing, name, wanted)
        return trace(self, thing, name, wanted)

    # Files

    def load(self) -> None:
        """Make every probe declared so far visible to tracers.

        Where no directory can hold the file it lives in memory, with a warning: only tools that are given the pid find
        it then. Elsewhere than on Linux on x86-64 or aarch64 the probes stay silent, with a warning. Raises
        UsdtkitError.
        """
        if warning := self._load_pending(again=True):
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def unload(self) -> None:
        """Silence every probe, for whoever traces it and whatever thread fires it just now; `load` undoes it.

        Files stay mapped, and tracers attached to them.
        """
        with _turn.lock:
            self._unloaded = True
            for probe in self.probes:
                _probe.silence(probe)

    def build(self, file: str | os.PathLike[str] | None = None) -> Path:
        """Write the file of the probes not yet loaded, load nothing, and return its path; without such, the last file.

        Tracers can attach to the path before any process uses it. With `file` the file of all probes is written there,
        to be shipped with the application and named in `Provider(…, file=…)`. Raises UsdtkitError.
        """
        from usdtkit.probes import loading

        if file is None and not self._pending and self._files and not isinstance(self._files[-1], str):
            return self._files[-1]
        names = self._declared if file is not None else self._pending
        if not names:
            raise UsageError(
                f"provider {self._name} has no probes to write", hint="declare them first: provider.probe(…)"
            )
        return loading.write(self._wanted(list(names)), file)

    def _wanted(self, probes: Iterable[str]) -> Wanted:
        from usdtkit.probes.loading import Wanted

        declared = [self._declared[name] for name in probes]
        texts = [
            canonical(name, doc, stability, text) if doc or stability else f"{name}\n\n{text}"
            for name, doc, _, stability, text, _ in declared
        ]
        return Wanted(self._name, texts, lambda: [ProbeSpec(*each[:4]) for each in declared], _nop(self._nop))

    def _load_on_use(self) -> None:
        """Load for the first use of a probe; tracing that cannot be had must not stop the application."""
        if sys.is_finalizing():
            return  # the interpreter takes its modules to pieces, and no tracer could attach in time
        try:
            warning = self._load_pending()
        except UsdtkitError as error:
            self._silence(dict(self._pending))
            warning = f"{error.message}; the probes of {self._name} stay silent"
        if warning and warning not in self._said:
            self._said.add(warning)
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def _load_pending(self, *, again: bool = False) -> str:
        """Load what is pending and return a warning, or an empty string."""
        turn = _turn
        with turn.lock:
            # Taken already: a signal handler or an audit hook fires a probe in the midst of this thread's own load.
            if turn.taken:
                return ""
            if again and self._unloaded:
                self._unloaded = False
                for probe in self.probes:
                    if probe.path is not None or probe.name in self._pending:
                        _probe.unsilence(probe)
            if not self._pending:
                return ""
            turn.taken = True
            try:
                return self._load(dict(self._pending))
            finally:
                turn.taken = False

    def _load(self, pending: dict[str, Probe[...]]) -> str:
        # Not before it is needed, so that the import of usdtkit is quick: it brings hashlib.
        from usdtkit.probes import loading

        if not loading.possible():
            self._silence(pending)
            return "probes do nothing on this machine: usdtkit loads them on Linux on x86-64 or aarch64"
        shipped = None if self._files else self._options["file"]
        path, content, warning = loading.file(self._wanted(pending), shipped)
        try:
            _probe.load(str(path), tuple(pending.values()), *loading.stubs(content))
        except OSError as error:
            raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {error}") from error
        self._files.append(path)
        self._forget(pending)
        return warning

    def _silence(self, pending: dict[str, Probe[...]]) -> None:
        for probe in pending.values():
            _probe.silence(probe)
        self._forget(pending)

    def _forget(self, pending: Iterable[str]) -> None:
        # Others may have been declared meanwhile: those stay.
        for name in list(pending):
            self._pending.pop(name, None)


def all_providers() -> tuple[Provider, ...]:
    """The providers of this process that are in use."""
    return tuple(_providers.values())


def specs_of(name: str) -> tuple[ProbeSpec, ...]:
    """What the provider of this name has declared in this process."""
    provider = _providers.get(name)
    return () if provider is None else provider.specs


def record(recorder: Recorder | None) -> None:
    """From here on call recorder(probe, values) for each fire of any probe, tracer or not; None ends it.

    For `usdtkit.testing`. The values are those that a tracer would read.
    """
    global _recorder
    with _turn.lock:
        _recorder = recorder
        for provider in all_providers():
            for probe in provider.probes:
                _probe.set_recorder(probe, recorder)


def _nop(wanted: str) -> str:
    """The nop to make sites of, by what the kernel does with it: asked once, and only when it matters."""
    global _optimises
    if wanted == "fast" and _optimises is None:
        _optimises = _probe.optimises()
    return "fast" if wanted == "fast" and _optimises else "safe"
