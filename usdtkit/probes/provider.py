"""A provider: declares typed probes, and makes them visible to tracers.

Input: the declarations of an application. Output: `Probe` objects that fire. `declaration` checks what is declared,
`publishing` puts the new probes into a file and binds them to it, `registry` has the providers of the process by name.
`spans` and `traced` are declared through it, and `drops` reports calls that cannot be fired.
"""

from __future__ import annotations

import os
import warnings

from usdtkit.errors import UsageError
from usdtkit.probes import registry
from usdtkit.probes.compiled import Declarer, LiveSpan, Probe, Span, SpanByName, native
from usdtkit.probes.declaration import (
    MAX_DOC,
    NOPS,
    ON_ERROR,
    STABILITIES,
    ProbeSpec,
    argument,
    check_choice,
    check_name,
    check_text,
    known_shapes,
    shape_of,
    taken_back,
)
from usdtkit.probes.drops import drop_mode, report_drop, warn
from usdtkit.probes.namesakes import differences, give_way, spec_of
from usdtkit.probes.publishing import Publisher
from usdtkit.probes.registry import all_providers, turn

TYPE_CHECKING = False  # as in usdtkit/__init__.py

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import ModuleType
    from typing import Any, ParamSpec, TypeVar, final, overload

    from usdtkit.probes.traced import Decorator
    from usdtkit.probes.types import ArgumentType, Nop, OnError, Stability

    _P = ParamSpec("_P")
    _Traced = TypeVar("_Traced", bound="Callable[..., Any] | ModuleType")
    Recorder = Callable[["Probe[...]", tuple[Any, ...]], None]
else:

    def final(cls):
        """Return the class: only type checkers refuse to derive another one from it."""
        return cls


__all__ = ["Probe", "Provider", "argument"]

_recorder: Recorder | None = None

native.on_drop(report_drop, f"{os.path.dirname(__file__)}/")  # noqa: PTH120 to import pathlib would delay each start


@final
class Provider:
    """A named group of probes, as tracers see it: the `shop` of `shop:order__start`.

    A name has at most 64 ASCII letters, digits, `_` and `-`. DTrace prints a double underscore in the name of a probe
    as a hyphen, and `begin__end` pairs are named with it by custom. A process has one provider of each name: another
    `Provider("shop")` returns the same object.

    With `nop="fast"` a traced call costs less than half on kernels that support it (x86-64, Linux 6.18). Other kernels
    get the usual sites. `file` is the path of a file that `usdtkit provider build` has made ahead of time.

    A call whose values do not fit is not fired, and the caller goes on as if nobody traced. `Probe.dropped` and the
    tracer count such calls, and the log gets one line for each probe. With `on_error="raise"` such a call raises. It
    also raises in Python's development mode, and while `usdtkit.testing` records, unless `on_error="drop"`.
    """

    _name: str

    def __new__(
        cls,
        name: str,
        *,
        nop: Nop | None = None,
        on_error: OnError | None = None,
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
        with turn().lock:
            provider = registry.providers.get(name)
            if provider is None:
                provider = super().__new__(cls)
                provider._begin(name, chosen)
                registry.providers[name] = provider
            for option, value in chosen.items():
                existing = provider._options[option] or ("drop" if option == "on_error" else None)
                if value != existing:
                    raise UsageError(
                        f"provider {name} exists with {option}={existing!r}, not {value!r}",
                        hint="give the options only where the provider is created first",
                    )
        return provider

    def _begin(self, name: str, options: Mapping[str, str], *, ready_made: bool = False) -> None:
        self._name = name
        self._options: dict[str, Any] = {"nop": "safe", "on_error": None, "file": None, **options}
        self._drops = drop_mode(self._options["on_error"])
        self._declared: dict[str, Probe[...]] = {}
        self._publisher = Publisher(
            name, self._declared, nop=self._options["nop"], file=self._options["file"], ready_made=ready_made
        )
        # If there are two providers of this name, each declaration of the one is compared with those of the other.
        self._has_namesake = ready_made or name in registry.ready_made_providers
        # Replaces the method `probe` on this object. It makes plain probes without Python code, because an application
        # declares hundreds of probes while it starts, and calls the method for the others.
        self._declare = Declarer(self.probe, name, self._load_on_use, self._declared, known_shapes, self._drops)
        self._renew_quick()
        self.__dict__["probe"] = self._declare
        # In the same way `span` is replaced, which finds the spans that are declared already.
        self._spans: dict[str, Span[...]] = {}
        self.__dict__["span"] = SpanByName(self.span, self._spans)
        self._decorator: Decorator | None = None

    def _renew_quick(self) -> None:
        """Let the compiled declarer work by itself, unless a new probe needs more than a declaration."""
        self._declare.quick = not (self._has_namesake or self._publisher.unloaded or _recorder is not None)

    def __repr__(self) -> str:
        return f"<Provider {self._name}: {len(self._declared)} probes, {len(self._publisher.pending)} not loaded>"

    @property
    def name(self) -> str:
        """The provider's name."""
        return self._name

    @property
    def probes(self) -> tuple[Probe[...], ...]:
        """All probes declared so far, in order."""
        return self._publisher.probes

    @property
    def specs(self) -> tuple[ProbeSpec, ...]:
        """The probes as they were declared, in the same order."""
        return tuple(map(spec_of, self.probes))

    @property
    def files(self) -> tuple[Path | str, ...]:
        """The files of the loaded probes. One that exists in memory only is a str, /proc/PID/fd/N."""
        from pathlib import Path

        return tuple([path if path.startswith("/proc/") else Path(path) for path in self._publisher.paths])

    def probe(
        self,
        name: str,
        arguments: Mapping[str, ArgumentType] | None = None,
        /,
        *,
        doc: str | ArgumentType = "",
        stability: Stability | ArgumentType = "",
        on_error: OnError | ArgumentType | None = None,
        **more: ArgumentType,
    ) -> Probe[...]:
        """Declare a probe. Its arguments are given as `name="type"`, in order, with at most 12 operands in all.

        The types are u8 u16 u32 u64 i8 i16 i32 i64 bool; f32 f64 (tracers get the IEEE bits as an integer); str (they
        get a pointer to UTF-8 that ends with a NUL); bytes (any contiguous buffer; two operands, a pointer and a
        length); json (any object, which they get as a str); an `enum.Enum` (they get its number); or `argument(type,
        unit=…, doc=…)`. `doc` is a text for people, and `stability` tells them whether the probe is private, unstable,
        evolving or stable. `on_error` ("raise", "drop") is that of `Provider` for this probe.

        An argument may have the name of one of these options: its value is a type. It comes after the others. A
        mapping, `arguments`, puts it elsewhere, and is needed where the option is given too.

        The same declaration again returns the same probe. A different one under the same name raises UsageError. A
        probe that is declared after a load goes into a further file at the next load.
        """
        declared: dict[str, Any] = {**(arguments or {}), **more}
        probe: Probe[...] = self._probe(name, declared, doc=doc, stability=stability, on_error=on_error)
        return probe

    def _probe(self, name: str, arguments: dict[str, Any], **options: object) -> Any:
        check_name("a probe", name)
        doc, stability, on_error = taken_back(arguments, **options)
        shape = shape_of(f"probe {self._name}:{name}", arguments)
        check_text(f"the doc of probe {self._name}:{name}", doc, MAX_DOC)
        check_choice(f"the stability of probe {self._name}:{name}", stability, STABILITIES)
        drops = self._drops
        if on_error is not None:
            drops = drop_mode(check_choice(f"on_error of probe {self._name}:{name}", on_error, ON_ERROR))
        probe: Probe[...] = Probe(self._name, name, doc, stability, shape, self._load_on_use, drops)
        # Set in one step: two threads that declare the same probe both get that of the first one.
        declared = self._declared.setdefault(name, probe)
        if declared is not probe and spec_of(declared) != spec_of(probe):
            raise UsageError(
                f"probe {self._name}:{name} is declared twice, and differently: {differences(declared, probe)}",
                hint="declare each probe once, at module level, and import it",
            )
        with turn().lock:
            warning = give_way(self._name) if self._has_namesake else ""
            if self._publisher.unloaded or self._publisher.given_way:
                native.silence(declared)
            native.set_recorder(declared, _recorder)
        if warning:  # without the lock, because the log's handlers are the application's code
            warn(warning)
        return declared

    def define(self, function: Callable[_P, object], /) -> Probe[_P]:
        """Declare a probe by a function: its name, parameters, annotations and docstring. The function is never called.

            @shop.define
            def order__start(order_id: u64, customer: str): "An order arrives."

        An annotation is a type of `usdtkit` (u64, f32, …), int (i64), float (f64), bool, str, bytes, object (json), an
        Enum, or Annotated[int, argument(…)]. Raises UsageError.
        """
        from usdtkit.probes.signature import arguments_of

        name = check_name("a probe", getattr(function, "__name__", None))
        options = {"doc": (function.__doc__ or "").strip(), "stability": "", "on_error": None}
        probe: Probe[_P] = self._probe(name, arguments_of(function), **options)
        return probe

    # Spans

    if TYPE_CHECKING:

        @overload
        def define_span(self, function: Callable[_P, object], /) -> Span[_P]: ...
        @overload
        def define_span(
            self,
            name: str,
            arguments: Mapping[str, ArgumentType] | None = None,
            /,
            *,
            doc: str | ArgumentType = "",
            **more: ArgumentType,
        ) -> Span[...]: ...

    def define_span(
        self,
        name: Any,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        doc: Any = "",
        **more: Any,
    ) -> Span[...]:
        """Declare NAME__start and NAME__done for a stretch of work. Types are those of `probe`, at most 9 operands.

        Start has `span` (u64, the same at both ends), `parent_span` (u64) and `trace_id` (str) before the arguments.
        Done has `span`, `latency_ns` and `error`, the name of the exception that left the block, or "".

        As a decorator, it declares the span by a function, as `define` does a probe, and type checkers know the values.
        """
        from usdtkit.probes.spans import declare_span

        declared = {**(arguments or {}), **more}
        if callable(name):
            from usdtkit.probes.signature import arguments_of

            declared, doc = arguments_of(name), (name.__doc__ or "").strip()
            name = getattr(name, "__name__", None)
        else:
            (doc,) = taken_back(declared, doc=doc)
        return self._spans.setdefault(name, declare_span(self._probe, self._name, name, declared, doc))

    def span(self, name: str, /, **values: object) -> LiveSpan:
        """Return a stretch of work for `with` or `async with`. NAME__start fires at its begin, NAME__done at its end.

        The types are those of `define_span`. Without it they are those of the first values: bool, int (i64), float
        (f64), str and bytes; values of any other type are json.
        """
        span = self._spans.get(name)
        if span is None:
            from usdtkit.probes.spans import types_of

            # What has been declared before goes into a file first, because tracers may know the name of that file.
            self._load_on_use()
            with turn().lock:  # if the values of two threads have different types, those of the first thread count
                span = self._spans.get(name) or self.define_span(name, types_of(values))
        return span(**values)

    if TYPE_CHECKING:

        @overload
        def traced(self, thing: _Traced, /) -> _Traced: ...
        @overload
        def traced(
            self,
            /,
            *,
            name: str | ArgumentType | None = None,
            arguments: Mapping[str, ArgumentType] | ArgumentType | None = None,
            **more: ArgumentType,
        ) -> Callable[[_Traced], _Traced]: ...

    def traced(self, thing: Any = None, /, *, name: Any = None, arguments: Any = None, **more: Any) -> Any:
        """Make a span of each call of a function, coroutine or generator, or of all public ones of a class or module.

        Use it as a bare decorator, or as `@shop.traced(name="order", order_id="u64")`: the parameters that are named
        become arguments of NAME__start. The default name is the function's qualified one, with `_` in place of
        characters that the name of a probe cannot contain. A mapping, `arguments`, names parameters too. A parameter
        may be called `name` or `arguments`: its value is a type.
        """
        from usdtkit.probes.traced import Decorator

        with turn().lock:
            decorator = self._decorator = self._decorator or Decorator(self.define_span)
        name, arguments = taken_back(more, name=name, arguments=arguments)
        declared = {**(arguments or {}), **more}
        if thing is None:
            return lambda thing: decorator.trace(thing, name, declared)
        return decorator.trace(thing, name, declared)

    # Files

    def load(self) -> None:
        """Make every probe declared so far visible to tracers.

        If no directory can hold the file, it lives in memory, with a warning; then only tools that are given the pid
        find it. On other systems than Linux on x86-64 or aarch64 the probes stay silent, with a warning. Raises
        UsdtkitError.
        """
        warning = self._publisher.load()
        with turn().lock:
            self._renew_quick()
        if warning:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)

    def unload(self) -> None:
        """Silence every probe at once, even if it is traced or a thread is just firing it. `load` undoes it.

        The files stay mapped, and tracers stay attached to them.
        """
        with turn().lock:
            self._declare.quick = False  # first, so that a probe that is being declared is silenced too
            self._publisher.unload()

    def build(self, file: str | os.PathLike[str] | None = None) -> Path:
        """Write the file of the probes that are not loaded yet, without loading it, and return its path.

        Tracers can attach to the path before any process uses it. If all probes are loaded, this returns the path of
        the last file. With `file`, the probes of the provider are all written to that path, to be shipped with the
        application and named in `Provider(…, file=…)`. Raises UsdtkitError.
        """
        return self._publisher.build(file)

    def _load_on_use(self) -> None:
        """Load for the first use of a probe. Through this method a probe also keeps its provider alive."""
        self._publisher.load_on_use(stacklevel=3)


def ready_made(name: str) -> Provider:
    """Return the provider of this name that `usdtkit.instrument` has for itself.

    It gives way to the program's own provider of the same name: if both declare a probe of the same name, the
    ready-made probes are silent from then on, and the log says so.
    """
    with turn().lock:
        if name not in registry.ready_made_providers:
            provider = object.__new__(Provider)
            # Whatever a library gives them, and also in development and tests: the program has not called them.
            provider._begin(name, {"on_error": "drop"}, ready_made=True)
            registry.ready_made_providers[name] = provider
            if (namesake := registry.providers.get(name)) is not None:
                namesake._has_namesake, namesake._declare.quick = True, False
        return registry.ready_made_providers[name]


def record(recorder: Recorder | None) -> None:
    """Call recorder(probe, values) for each fire of any probe from here on, traced or not. None ends it.

    For `usdtkit.testing`. The values are those that a tracer would read.
    """
    global _recorder
    with turn().lock:
        _recorder = recorder
        for provider in all_providers():
            provider._renew_quick()
            for probe in provider.probes:
                native.set_recorder(probe, recorder)
    for listener in registry.recording_listeners:  # without the lock, because hooks of libraries are set
        listener(recorder is not None)


def is_recorded() -> bool:
    """Return whether somebody records the probes of this process."""
    return _recorder is not None
