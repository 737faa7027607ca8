"""The compiled module behind `usdtkit.Probe`. Its source is native/probe.c and native/probe_*.c."""

from collections.abc import Awaitable, Callable
from types import FunctionType, TracebackType
from typing import Any, Generic, ParamSpec, final

from usdtkit.probes.declaration import Shape

_P = ParamSpec("_P")

TYPES: tuple[str, ...]
"""The types of arguments, in the order of the numbers that a shape names them by."""

@final
class Probe(Generic[_P]):
    """A typed probe; calling it fires it. Made by `Provider.probe` and `Provider.define`."""

    def __new__(
        cls,
        provider: str,
        name: str,
        doc: str,
        stability: str,
        shape: Shape,
        loader: Callable[[], object],
        drops: int = 0,
        /,
    ) -> Probe[_P]:
        """`loader` is called by the first use of the probe, and calls `load` or `silence` for it.

        `drops` says what a call does whose values cannot be fired. It raises (0); it is counted, and the caller goes on
        (1); or it raises while somebody records, and is counted otherwise (2).
        """
    def __call__(self, *values: _P.args, **named: _P.kwargs) -> None:
        """Fire the probe. While nobody traces it, the call returns at once and does not look at the values.

        While somebody traces it, a call whose values do not fit is not fired: it is counted in `dropped` and by the
        tracer, and the log gets one line for each probe. With on_error="raise", in Python's development mode and while
        `usdtkit.testing` records, such a call raises: TypeError for a wrong number or type of values, OverflowError for
        a value that is out of range, ValueError for one that the enum does not have or that JSON cannot represent.
        """
    def lazy(self, function: Callable[[], tuple[object, ...]], /) -> None:
        """Fire with the tuple that `function` returns. The function is called only while somebody traces the probe."""
    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to this probe now."""
    @property
    def fired(self) -> int:
        """How many calls this process has fired while somebody traced. A forked child begins at 0."""
    @property
    def dropped(self) -> int:
        """How many calls could not be fired while somebody traced, because of their values."""
    @property
    def provider(self) -> str:
        """The name of its provider: `shop` of shop:order__start."""
    @property
    def name(self) -> str:
        """Its own name: `order__start` of shop:order__start."""
    @property
    def doc(self) -> str:
        """The description that it was declared with, or an empty string."""
    @property
    def stability(self) -> str:
        """Its stability as declared: private, unstable, evolving, stable, or an empty string."""
    @property
    def shape(self) -> Shape:
        """Its arguments as they were declared."""
    @property
    def place(self) -> tuple[str, int] | None:
        """The file and line of its declaration."""
    @property
    def pristine(self) -> int:
        """The first byte of its site while nobody traces it, as in its file; 0 before the probe is loaded."""
    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(name, type) of each argument, in order."""
    @property
    def path(self) -> str | None:
        """The file that carries the probe; None before it is loaded."""

class Declarer:
    """Declares the probes of a provider as the function `general` does, which is Provider.probe, but faster.

    It makes a probe itself when the declaration is plain and its arguments are known, and calls `general` otherwise.
    `declared` has the probes by name; `shapes` is `declaration.known_shapes`.
    """

    quick: bool
    """Whether it may declare a probe without calling that function."""

    def __init__(
        self,
        general: Callable[..., Probe[...]],
        provider: str,
        loader: Callable[[], object],
        declared: dict[str, Probe[...]],
        shapes: dict[object, Shape],
        drops: int,
    ) -> None: ...
    def __call__(self, name: str, /, *more: object, **named: object) -> Probe[...]: ...

@final
class LiveSpan:
    """One stretch of work, for one `with` or `async with`. While nobody traces, all are one that does nothing."""

    def __enter__(self) -> LiveSpan:
        """Fire the start. What begins now in the same context is within this span."""
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Fire the end."""
    def __aenter__(self) -> Awaitable[LiveSpan]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> Awaitable[None]: ...
    def pause(self) -> None:
        """Make the span around this one the current one, until `resume`; for a generator that yields."""
    def resume(self) -> None:
        """Undo `pause`, perhaps in another context."""

UNTRACED: LiveSpan
"""The stretch of work of every span that nobody traces."""

@final
class Span(Generic[_P]):
    """A declared span. Called with its values it returns a `LiveSpan`. Made by `Provider.define_span`."""

    def __init__(self, name: str, start: Probe[...], done: Probe[...]) -> None: ...
    def __call__(self, /, *values: _P.args, **named: _P.kwargs) -> LiveSpan:
        """Return a stretch of work with these values of the declared arguments."""
    @property
    def name(self) -> str:
        """Its name: `payment` of payment__start and payment__done."""
    @property
    def start(self) -> Probe[...]:
        """The probe that fires at its begin."""
    @property
    def done(self) -> Probe[...]:
        """The probe that fires at its end."""
    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to its start or its end."""

@final
class SpanByName:
    """Calls the span of `spans` that its first value names, or else `general`, which is Provider.span."""

    def __init__(self, general: Callable[..., LiveSpan], spans: dict[str, Span[...]]) -> None: ...
    def __call__(self, name: str, /, **values: object) -> LiveSpan: ...

@final
class Traced:
    """A function with a span around each call. While nobody traces, a call of it calls the function.

    While somebody does, `values(args, kwargs)` returns the values of the span, unless it is None. A `wrapper`, if there
    is one, is called in place of the function, and makes the span itself.
    """

    def __init__(
        self,
        function: FunctionType,
        span: Span[...],
        values: Callable[[tuple[Any, ...], dict[str, Any]], tuple[object, ...]] | None,
        wrapper: Callable[..., Any] | None,
    ) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

def on_span(foreign: Callable[[], tuple[str, int] | None], /) -> None:
    """Ask foreign() for trace id and span id where a span begins, if the program has imported opentelemetry."""

def span_number() -> int:
    """Return a number of 64 bits that no other span of this process has, nor one of another running process."""

def columns(
    probes: tuple[Probe[...], ...],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return names, docs, stabilities and canonical arguments of the probes, as `declaration.canonical` takes them."""

def load(path: str, probes: tuple[Probe[...], ...], pristine: int, offset: int, stride: int, renewed: int = 0) -> None:
    """Map the library `path` for good, and bind each probe to its stub unless it is bound already.

    The first stub is at `offset` of the file, which is its virtual address too, and each further one `stride` bytes
    behind the one before. `pristine` is the first byte of each. In forked children `renewed` bytes of stubs are mapped
    anew. Raises OSError if the library cannot be loaded; then no probe is bound.
    """

def report(text: bytes) -> bool:
    """Put what an integration says of itself where other processes can read it. Returns whether there was room."""

def counters(probe: Probe[...]) -> int:
    """Return the address of two numbers of 64 bits, how often a loaded probe has been fired and dropped.

    They stay there as long as the process.
    """

def tell_hooks(probe: Probe[...], are_set: bool, /) -> None:
    """Say to other processes, of a loaded probe that hooks call, whether these are set."""

def silence(probe: Probe[...]) -> None:
    """Have the probe not enabled, even while somebody traces it."""

def unsilence(probe: Probe[...]) -> None:
    """Undo `silence`."""

def set_recorder(probe: Probe[...], recorder: Callable[[Probe[...], tuple[object, ...]], object] | None) -> None:
    """Call recorder(probe, values) for each fire, with the values that a tracer would read. None ends the recording."""

def on_drop(report_drop: Callable[[Probe[...], BaseException], BaseException | None], package_path: str) -> None:
    """Call report_drop(probe, exception) for each dropped call, and raise the exception that it returns, if any.

    Code in files whose names begin with `package_path` declares probes for others, and is never the `place` of a probe.
    """

def optimises() -> bool:
    """Return whether the kernel replaces a traced five-byte nop by a call. Starts a short-lived child process."""
