"""The compiled module behind `usdtkit.Probe`. Its source is native/probe.c and native/probe_*.c."""

from collections.abc import Callable
from typing import Generic, ParamSpec, final

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
        """`loader` is called by the first use of the probe, and makes it visible by `load` or `silence`.

        `drops`: a call that cannot be fired raises (0), is counted and lets the caller go on (1), or that only where
        nobody records (2).
        """
    def __call__(self, *values: _P.args, **named: _P.kwargs) -> None:
        """Fire: while nobody traces the probe nothing is looked at, the values included.

        While somebody does, values that do not fit are not fired. Such a call is counted in `dropped`, and by the
        tracer; the log gets one line a probe. With on_error="raise", in Python's development mode and while
        `usdtkit.testing` records it raises: TypeError for a wrong number or type of values, OverflowError for one out
        of range, ValueError for what an enum does not have or JSON cannot say.
        """
    def lazy(self, function: Callable[[], tuple[object, ...]], /) -> None:
        """Fire with the values that `function` returns; it is called only while somebody traces the probe."""
    @property
    def enabled(self) -> bool:
        """Whether a tracer is attached to this probe now."""
    @property
    def dropped(self) -> int:
        """How many calls could not be fired while somebody traced, because of their values."""
    @property
    def provider(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def doc(self) -> str: ...
    @property
    def stability(self) -> str: ...
    @property
    def shape(self) -> Shape:
        """What was declared of its arguments."""
    @property
    def place(self) -> tuple[str, int] | None:
        """File and line of its declaration."""
    @property
    def pristine(self) -> int:
        """The first byte of its site while nobody traces it, as its file has it; 0 before it is loaded."""
    @property
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """(name, type) of each argument, in order."""
    @property
    def path(self) -> str | None:
        """The file that carries the probe; None before it is loaded."""

class Declarer:
    """Stands for the function `general`, which is Provider.probe: the same, and quick for what is plainly right.

    `declared` are the probes by name, `shapes` those of `declaration.known_shapes`.
    """

    quick: bool
    """Whether it may declare a probe without asking that function."""

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

def span_number() -> int:
    """A number that no other span of this process has, nor one of another process while it lasts: 64 bits."""

def columns(
    probes: tuple[Probe[...], ...],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What `declaration.canonical` takes: of each probe name, doc, stability and the text of its arguments."""

def load(path: str, probes: tuple[Probe[...], ...], pristine: int, offset: int, stride: int, renewed: int = 0) -> None:
    """Map the library `path` for good and bind each probe, unless it is bound already, to its stub.

    Stubs stand `stride` bytes from each other, the first at `offset` of the file, which is its virtual address too.
    `pristine` is the first byte of each. That many bytes there are `renewed`, mapped anew, in forked children. OSError
    when the library cannot be had; then no probe is bound.
    """

def silence(probe: Probe[...]) -> None:
    """Have a probe that is not enabled, whoever traces it."""

def unsilence(probe: Probe[...]) -> None:
    """Undo `silence`."""

def set_recorder(probe: Probe[...], recorder: Callable[[Probe[...], tuple[object, ...]], object] | None) -> None:
    """Call recorder(probe, values) for each fire, with what a tracer would read; None ends it."""

def on_drop(complain: Callable[[Probe[...], BaseException], BaseException | None], own: str) -> None:
    """Call complain(probe, exception) for each call that is dropped; what it returns is raised.

    `own` is what the names of those files begin with whose code declares probes for others: they are no `place`.
    """

def optimises() -> bool:
    """Whether the kernel makes a call of a five-byte nop that is traced. Takes a short-lived child process."""
