"""What a hook does with a hit: send an event, count, sum, keep. Declarations only, made by `usdtkit.trace.sources`.

Input: expressions. Output: actions, which `statements` renders, and the scales by which histograms are counted and
shown.
"""

from __future__ import annotations

from collections.abc import Callable

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.errors import UsageError
from usdtkit.records import dataclass

MAX_BUCKETS = 1000


@dataclass(frozen=True)
class Logarithmic:
    """Buckets that grow with their values: 2**`bits` of equal width for each power of two, as HdrHistogram has them.

    Values below 2**(bits + 1) have a bucket each, and no other bucket is wider than its values divided by 2**bits.
    Bucket 0 holds all values below 0.
    """

    bits: int = 4

    @property
    def buckets(self) -> int:
        """The number of buckets. The slot behind the last one holds the sum of the values."""
        return ((65 - self.bits) << self.bits) + 1

    def bounds(self, bucket: int) -> tuple[int | None, int | None]:
        """The minimum of a bucket, and that of the next one; None where there is no bound."""
        if bucket == 0:
            return None, 0
        parts, at = 1 << self.bits, bucket - 1
        shift = max(at // parts - 1, 0)
        low = (at - shift * parts) << shift
        return low, low + (1 << shift)

    def render(self, value: str, signed: bool, parameter: Callable[[int], str]) -> str:
        """The C that finds the bucket of a value."""
        bucket = f"logarithmic({value}, {self.bits})"
        return f"(s64){value} < 0 ? 0 : {bucket}" if signed else bucket

    def bucket(self, value: int) -> int:
        """The bucket of one value, as the program in the kernel finds it."""
        shift = max(value.bit_length() - self.bits - 1, 0)
        return 0 if value < 0 else (shift << self.bits) + (value >> shift) + 1


POWERS_OF_TWO = Logarithmic(0)


@dataclass(eq=False, repr=False)
class Linear:
    """Buckets of `step` from `low` to `high`. The first holds all values below `low`, the last all from `high` on."""

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
        """The number of buckets. The slot behind the last one holds the sum of the values."""
        return -((self.low - self.high) // self.step) + 2

    def bounds(self, bucket: int) -> tuple[int | None, int | None]:
        """The minimum of a bucket, and that of the next one; None where there is no bound."""
        if bucket == 0:
            return None, self.low
        start = self.low + (bucket - 1) * self.step
        return start, (None if bucket == self.buckets - 1 else start + self.step)

    def render(self, value: str, signed: bool, parameter: Callable[[int], str]) -> str:
        """The C that finds the bucket of a value."""
        return f"linear({value}, {parameter(self.low)}, {parameter(self.step)}, {self.buckets - 2})"

    def bucket(self, value: int) -> int:
        """The bucket of one value, as the program in the kernel finds it."""
        return max(0, min((value - self.low) // self.step + 1, self.buckets - 1))


Scale = Logarithmic | Linear


@dataclass(eq=False, repr=False)
class Emit:
    """Send an event of the type `number` with these fields."""

    number: int
    fields: dict[str, ex.Expression]


@dataclass(eq=False, repr=False)
class Count:
    """Count hits, or add `amount`, by the values of `keys`, in the table `number`."""

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
    """Keep count, sum, minimum and maximum of `value`, by the values of `keys`, in the table `number`; with `anew`,
    in entries of their own for each interval, whose number the map `interval_name` holds."""

    number: int
    value: ex.Expression
    keys: dict[str, ex.Expression]
    anew: bool = False


@dataclass(eq=False, repr=False)
class Raw:
    """Send an event of the type `number` whose fields a user's C fills. `values` are the variables that it can read."""

    number: int
    fields: tuple[Field, ...]
    text: str
    declarations: str
    values: dict[str, ex.Expression]

    @property
    def body_name(self) -> str:
        """The name by which the compiler reports errors in the text."""
        return f"raw_{self.number}"

    @property
    def declarations_name(self) -> str:
        """The name by which the compiler reports errors in the declarations."""
        return f"declarations_{self.number}"


@dataclass(eq=False, repr=False)
class Put:
    """Add or replace the entry of `key` in the session's map `number`."""

    number: int
    key: ex.Expression
    values: tuple[ex.Expression, ...]


@dataclass(eq=False, repr=False)
class Delete:
    """Remove the entry of `key` from the session's map `number`, if there is one."""

    number: int
    key: ex.Expression


@dataclass(eq=False, repr=False)
class Assign:
    """Set these fields, by their index in `layout`, of the values `number` of the thread."""

    number: int
    layout: Layout
    values: dict[int, ex.Expression]


@dataclass(eq=False, repr=False)
class Fill:
    """Keep `values` in the open pair that the hook `start` has begun: the texts of which it has none yet."""

    start: int
    values: dict[str, ex.Expression]


Action = Emit | Count | Hist | Stats | Raw | Put | Delete | Assign | Fill


def describe(action: Action) -> str:
    """An action in the words by which a user has asked for it."""
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
        case Put() | Delete() | Assign() | Fill():
            return f"{type(action).__name__.lower()}(…)"


@dataclass(eq=False, repr=False)
class Block:
    """An action, and the condition under which it is done; None means always."""

    condition: ex.Expression | None
    action: Action
