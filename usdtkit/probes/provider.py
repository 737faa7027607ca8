"""A provider: declares typed probes and makes them visible to tracers, all that are new at a time in one file.

Input: the declarations of the application. Output: `Probe` objects that fire. Between them: `declaration` checks,
`image` makes the bytes, `files` stores them, `usdtkit._probe` maps them; `spans` and `traced` stand on top, and `drops`
tells of calls that cannot be fired.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, final, overload
from weakref import WeakValueDictionary

from usdtkit.errors import UsageError, UsdtkitError
from usdtkit.probes.declaration import (
    MAX_DOC,
    ON_ERROR,
    STABILITIES,
    ProbeSpec,
    canonical,
    check_choice,
    check_name,
    check_text,
    known_shapes,
    shape_of,
)
from usdtkit.probes.drops import ask, complain, describe, how_to_drop, of_the_program, warn
from usdtkit.probes.namesakes import differences, give_way, is_silent_for_good, ready_made_providers, spec_of

try:
    from usdtkit import _probe
    from usdtkit._probe import Declarer, Probe, span_number
except ImportError:
    if not TYPE_CHECKING:
        from usdtkit.probes import silent as _probe
        from usdtkit.probes.silent import Declarer, Probe, span_number

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from usdtkit.probes.loading import Wanted
    from usdtkit.probes.spans import LiveSpan, Span

__all__ = ["Probe", "Provider", "span_number"]

_P = ParamSpec("_P")
_Traced = TypeVar("_Traced", bound="Callable[..., Any] | ModuleType")
Recorder = Callable[["Probe[...]", tuple[Any, ...]], None]
NOPS = ("safe", "fast")


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
_probe.on_drop(complain, f"{os.path.dirname(__file__)}/")  # noqa: PTH120 pathlib is dear at the start


@final
class Provider:
    """A named group of probes, as tracers see it: the `shop` of `shop:order__start`.

    Names are ASCII letters, digits, `_` and `-`, at most 64 of them. A double underscore in a probe's name is what
    DTrace prints as a hyphen, and the custom for `begin__end` pairs. In one process there is one provider of a name:
    another `Provider("shop")` is the same object.

    `nop="fast"` lays sites out so that kernels which can (x86-64, Linux 6.18) make a fire less than half as expensive
    while traced; where the kernel cannot, they are as ever. `file` is one that `usdtkit provider build` made ahead of
    time.

    A call whose values do not fit is not fired, and the caller goes on as if nobody traced: it is counted, in
    `Probe.dropped` and by the tracer, and the log gets a line a probe. It raises with `on_error="raise"`; so it does in
    Python's development mode, and while `usdtkit.testing` records, unless `on_error="drop"` says otherwise.
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
        chosen = {}
        if nop is not None:
            chosen["nop"] = check_choice(f"the nop of provider {name}", nop, NOPS)
        if on_error is not None:
            chosen["on_error"] = check_choice(f"on_error of provider {name}", on_error, ON_ERROR)
        if file is not None:
            chosen["file"] = os.fspath(file)
        with _turn.lock:
            provider = _providers.get(name)
            if provider is None:
                provider = super().__new__(cls)
                provider._begin(name, chosen, quick=name not in ready_made_providers)
                _providers[name] = provider
            for option, value in chosen.items():
                exists = provider._options[option] or ("drop" if option == "on_error" else None)
                if value != exists:
                    raise UsageError(
                        f"provider {name} exists with {option}={exists!r}, not {value!r}",
                        hint="give its options where it is made first, and nowhere else",
                    )
        return provider

    def _begin(self, name: str, options: Mapping[str, str], *, quick: bool) -> None:
        self._name = name
        self._options: dict[str, Any] = {"nop": "safe", "on_error": None, "file": None, **options}
        self._drops = how_to_drop(self._options["on_error"])
        self._declared: dict[str, Probe[...]] = {}
        # The first so many of them are bound to a file, or stay silent because there can be none.
        self._settled = 0
        self._unloaded = False
        # Stands for the method below, and is quick for what is right, as most is: an application's start waits for it.
        self._declare = Declarer(self.probe, name, self._load_on_use, self._declared, known_shapes, self._drops)
        # Where there is a ready-made provider of this name, each probe is compared with its.
        self._may_be_quick = quick
        self._declare.quick = quick and _recorder is None
        self.__dict__["probe"] = self._declare
        self._said: set[str] = set()
        self._files: list[str] = []
        self._spans: dict[str, Span] = {}
        self._traced_names: dict[str, object] = {}

    def __repr__(self) -> str:
        return f"<Provider {self._name}: {len(self._declared)} probes, {len(self._pending())} not loaded>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._name

    @property
    def probes(self) -> tuple[Probe[...], ...]:
        """All probes declared so far, in order."""
        # By way of a list, which takes them in one step, whatever other threads declare.
        return (*self._declared.values(),)

    @property
    def specs(self) -> tuple[ProbeSpec, ...]:
        """What was declared of each, in the same order."""
        return tuple(map(spec_of, self.probes))

    @property
    def files(self) -> tuple[Path | str, ...]:
        """The files that carry the loaded probes; a str, /proc/PID/fd/N, for one that exists in memory only."""
        from pathlib import Path

        return tuple([each if each.startswith("/proc/") else Path(each) for each in self._files])

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
        check_name("a probe", name)
        if arguments:
            more = {**arguments, **more}
        shape = shape_of(f"probe {self._name}:{name}", more)
        check_text(f"the doc of probe {self._name}:{name}", doc, MAX_DOC)
        check_choice(f"the stability of probe {self._name}:{name}", stability, STABILITIES)
        drops = self._drops
        if on_error is not None:
            drops = how_to_drop(check_choice(f"on_error of probe {self._name}:{name}", on_error, ON_ERROR))
        probe: Probe[...] = Probe(self._name, name, doc, stability, shape, self._load_on_use, drops)
        # In one step, so that of two threads with the same declaration both get the first one's.
        declared = self._declared.setdefault(name, probe)
        if declared is not probe and spec_of(declared) != spec_of(probe):
            raise UsageError(
                f"probe {self._name}:{name} is declared twice, and differently: {differences(declared, probe)}",
                hint="declare each probe once, at module level, and import it",
            )
        with _turn.lock:
            theirs = None if self._may_be_quick else _providers.get(self._name)
            told = give_way(self._name, theirs, _probe.silence)
            if self._unloaded or is_silent_for_good(self):
                _probe.silence(declared)
            _probe.set_recorder(declared, _recorder)
        if told:  # not with the lock in hand, for the log's handlers are the application's
            warn(told)
        return declared

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

        Start has `span` (u64, the same at both) before the arguments, done has `span`, `latency_ns` and `error`,
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
            with _turn.lock:  # of two threads with other types of values one is the first, and the other's are dropped
                span = self._spans.get(name) or define_by_values(self, name, values)
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
        if warning := self._settle():
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def unload(self) -> None:
        """Silence every probe, for whoever traces it and whatever thread fires it just now; `load` undoes it.

        Files stay mapped, and tracers attached to them.
        """
        with _turn.lock:
            self._unloaded, self._declare.quick = True, False
            for probe in self.probes:
                _probe.silence(probe)

    def build(self, file: str | os.PathLike[str] | None = None) -> Path:
        """Write the file of the probes not yet loaded, load nothing, and return its path; without such, the last file.

        Tracers can attach to the path before any process uses it. With `file` the file of all probes is written there,
        to be shipped with the application and named in `Provider(…, file=…)`. Raises UsdtkitError.
        """
        probes = self.probes if file is not None else self._pending()
        if not probes and file is None and self._files and not isinstance(last := self.files[-1], str):
            return last
        if not probes:
            raise UsageError(
                f"provider {self._name} has no probes to write", hint="declare them first: provider.probe(…)"
            )
        return self._wanted(probes).write(file)

    def _pending(self) -> tuple[Probe[...], ...]:
        return self.probes[self._settled :]

    def _wanted(self, probes: tuple[Probe[...], ...]) -> Wanted:
        # Not before it is needed, so that the import of usdtkit is quick: it brings hashlib.
        from usdtkit.probes.loading import Wanted

        text, nop = canonical(*_probe.columns(probes)), _nop(self._options["nop"])
        return Wanted(self._name, text, lambda: list(map(spec_of, probes)), nop)

    def _load_on_use(self) -> None:
        """Load for the first use of a probe; tracing that cannot be had must not stop the application."""
        if sys.is_finalizing():
            return  # the interpreter takes its modules to pieces, and no tracer could attach in time
        warning = self._settle(on_use=True)
        if warning and warning not in self._said:
            self._said.add(warning)
            if not ask(lambda: warnings.warn(warning, RuntimeWarning, stacklevel=4) is None, otherwise=False):
                warn(warning)  # -W error made an exception of it

    def _settle(self, *, on_use: bool = False) -> str:
        """Load what is pending and return a warning, or an empty string. On use nothing is raised."""
        turn = _turn
        with turn.lock:
            # Taken already: a signal handler or an audit hook fires a probe in the midst of this thread's own load.
            if turn.taken or is_silent_for_good(self):
                return ""
            if self._unloaded and not on_use:
                self._unloaded, self._declare.quick = False, self._may_be_quick and _recorder is None
                for number, probe in enumerate(self.probes):
                    if number >= self._settled or probe.path is not None:
                        _probe.unsilence(probe)
            if self._settled == len(self._declared):
                return ""
            turn.taken = True
            # Others may be declared meanwhile: those wait for the next time.
            pending = self._pending()
            try:
                warning = self._load(pending)
            except BaseException as error:
                # Whatever it is that this machine or this moment does not have, the application does without.
                if of_the_program(error) is not None or (isinstance(error, UsdtkitError) and not on_use):
                    raise
                if not on_use:
                    raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {describe(error)}") from error
                if isinstance(error, RecursionError):
                    return ""  # the caller is as deep as it may be: another use will load
                for probe in pending:
                    _probe.silence(probe)
                warning = f"{describe(error)}; the probes of {self._name} stay silent"
            finally:
                turn.taken = False
            self._settled += len(pending)
            return warning

    def _load(self, pending: tuple[Probe[...], ...]) -> str:
        wanted = self._wanted(pending)
        if not wanted.possible():
            for probe in pending:
                _probe.silence(probe)
            return "probes do nothing on this machine: usdtkit loads them on Linux on x86-64 or aarch64"
        path, stubs, warning = wanted.file(None if self._files else self._options["file"])
        try:
            _probe.load(path, pending, *stubs)
        except (OSError, MemoryError) as error:
            raise UsdtkitError(f"the probes of {self._name} cannot be loaded: {error}") from error
        self._files.append(path)
        return warning


def all_providers() -> tuple[Provider, ...]:
    """The providers of this process that are in use, ready-made ones included."""
    return (*_providers.values(), *ready_made_providers.values())


def ready_made(name: str) -> Provider:
    """For `usdtkit.instrument`: its own provider of this name, which gives way where the program's own has a probe that
    it has too: it is silent from then on, and the log says so.
    """
    with _turn.lock:
        if name not in ready_made_providers:
            provider = object.__new__(Provider)
            provider._begin(name, {}, quick=False)
            ready_made_providers[name] = provider
            if (namesake := _providers.get(name)) is not None:
                namesake._may_be_quick = namesake._declare.quick = False
        return ready_made_providers[name]


def record(recorder: Recorder | None) -> None:
    """From here on call recorder(probe, values) for each fire of any probe, tracer or not; None ends it.

    For `usdtkit.testing`. The values are those that a tracer would read.
    """
    global _recorder
    with _turn.lock:
        _recorder = recorder
        for provider in all_providers():
            provider._declare.quick = provider._may_be_quick and recorder is None and not provider._unloaded
            for probe in provider.probes:
                _probe.set_recorder(probe, recorder)


def _nop(wanted: str) -> str:
    """The nop to make sites of, by what the kernel does with it: asked once, and only when it matters."""
    global _optimises
    if wanted == "fast" and _optimises is None:
        _optimises = _probe.optimises()
    return "fast" if wanted == "fast" and _optimises else "safe"
