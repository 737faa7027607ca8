"""What a hook does with a hit: send an event, count, sum up, keep; declared, as `trace.sources` makes it.

Input: expressions. Output: actions, which `statements` renders; scales, by which their values are counted and shown.
"""

from __future__ import annotations

from collections.abc import Callable

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field
from usdtkit.errors import UsageError
from usdtkit.records import dataclass

MAX_BUCKETS = 1000


@dataclass(eq=False, repr=False)
class Log2:
    """Buckets of powers of two: bucket b has the values v with v.bit_length() == b; the last one, negative values."""

    @property
    def buckets(self) -> int:
        """How many there are. The slot behind the last is the sum of the values."""
        return 65

    def bounds(self, bucket: int) -> tuple[int | None, int | None]:
        """The least value of a bucket, and the least beyond it; None where there is no bound."""
        return (0 if bucket == 0 else 1 << bucket - 1), 1 << bucket

    def render(self, value: str, parameter: Callable[[int], str]) -> str:
        """The C of a value's bucket."""
        return f"bits({value})"

    def bucket(self, value: int) -> int:
        """Of one value, as the program finds it."""
        return value.bit_length() if value >= 0 else 64


@dataclass(eq=False, repr=False)
class Linear:
    """Buckets of `step` from `low` to `high`: the first has all that is less, the last all that is not."""

    low: int
    high: int
    step: int

    def __post_init__(self) -> None:
        if self.step < 1 or self.high <= self.low or self.buckets > MAX_BUCKETS:
            raise UsageError(
                f"a histogram from {self.low} to {self.high} by {self.step}",
                hint=f"low < high, step of 1 or more, at most {MAX_BUCKETS - 2} steps",
            )

    @property
    def buckets(self) -> int:
        """How many there are. The slot behind the last is the sum of the values."""
        return -((self.low - self.high) // self.step) + 2

    def bounds(self, bucket: int) -> tuple[int | None, int | None]:
        """The least value of a bucket, and the least beyond it; None where there is no bound."""
        if bucket == 0:
            return None, self.low
        start = self.low + (bucket - 1) * self.step
        return start, (None if bucket == self.buckets - 1 else start + self.step)

    def render(self, value: str, parameter: Callable[[int], str]) -> str:
        """The C of a value's bucket."""
        return f"linear({value}, {parameter(self.low)}, {parameter(self.step)}, {self.buckets - 2})"

    def bucket(self, value: int) -> int:
        """Of one value, as the program finds it."""
        return max(0, min((value - self.low) // self.step + 1, self.buckets - 1))


Scale = Log2 | Linear


@dataclass(eq=False, repr=False)
class Emit:
    """Send an event of the type `number` with these fields."""

    number: int
    fields: dict[str, ex.Expression]


@dataclass(eq=False, repr=False)
class Count:
    """Count hits, or sum up `amount`, by the values of `keys`, in the table `number`."""

    number: int
    keys: dict[str, ex.Expression]
    amount: ex.Expression | None = None


@dataclass(eq=False, repr=False)
class Hist:
    """Count `value` in the buckets of `scale`, by the values of `keys`, in the table `number`."""

    number: int
    value: ex.Expression
    keys: dict[str, ex.Expression]
    scale: Scale


@dataclass(eq=False, repr=False)
class Stats:
    """Count, sum, least and greatest of `value`, by the values of `keys`, in the table `number`."""

    number: int
    value: ex.Expression
    keys: dict[str, ex.Expression]


@dataclass(eq=False, repr=False)
class Raw:
    """Send an event of the type `number` with the fields that a user's C fills; `values` are variables for it."""

    number: int
    fields: tuple[Field, ...]
    text: str
    declarations: str
    values: dict[str, ex.Expression]

    @property
    def body_name(self) -> str:
        """What the compiler calls the place of the text."""
        return f"raw_{self.number}"

    @property
    def declarations_name(self) -> str:
        """What the compiler calls the place of the declarations."""
        return f"declarations_{self.number}"


@dataclass(eq=False, repr=False)
class Put:
    """Make, or replace, the entry of `key` in the session's map `number`."""

    number: int
    key: ex.Expression
    values: tuple[ex.Expression, ...]


@dataclass(eq=False, repr=False)
class Delete:
    """Take the entry of `key` from the session's map `number`, if there is one."""

    number: int
    key: ex.Expression


Action = Emit | Count | Hist | Stats | Raw | Put | Delete


def describe(action: Action) -> str:
    """An action in the words in which it was asked for."""
    match action:
        case Emit(_, fields):
            return f"emit({', '.join(fields)})"
        case Count(_, keys, amount):
            return f"{'count' if amount is None else 'sum'}({', '.join(keys)})"
        case Hist(_, _, keys):
            return f"hist({', '.join(['…', *keys])})"
        case Stats(_, _, keys):
            return f"stats({', '.join(['…', *keys])})"
        case Raw():
            return "raw C"
        case Put() | Delete():
            return f"{type(action).__name__.lower()}(…)"


@dataclass(eq=False, repr=False)
class Block:
    """An action, and what must be true for it."""

    condition: ex.Expression | None
    action: Action
