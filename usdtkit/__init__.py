"""usdtkit: probes for applications, and tools to trace them, with USDT, uprobes and eBPF.

This is the application's side. A probe that nobody traces costs about as much as the comparison of one byte:

    from usdtkit import Provider, u64

    shop = Provider("shop")
    order_start = shop.probe("order__start", doc="An order arrives.", order_id="u64", customer="str")

    @shop.define                    # the same by a signature, which type checkers know
    def order__done(order_id: u64, error: str): "An order is done."

    shop.load()                     # makes the probes visible to tracers; else the first call of a probe does

    order_start(42, "ada")
    order_start.lazy(lambda: (42, expensive()))      # called only while somebody traces
    with shop.span("payment", order_id=42):          # payment__start, payment__done
        ...

The tracer's side is `usdtkit.trace`, which applications do not import, and the command `usdtkit trace`.
`usdtkit.testing` is for the tests of an application.
"""

from usdtkit.errors import UsdtkitError
from usdtkit.version import VERSION as __version__

# Type checkers take it for true. Applications that only fire probes must not wait until typing is imported, which takes
# longer than all of ours.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from usdtkit.probes.declaration import argument
    from usdtkit.probes.provider import Probe, Provider
    from usdtkit.probes.types import ArgumentType, f32, f64, i8, i16, i32, i64, json, u8, u16, u32, u64

__all__ = [
    "ArgumentType",
    "Probe",
    "Provider",
    "UsdtkitError",
    "__version__",
    "argument",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "json",
    "u8",
    "u16",
    "u32",
    "u64",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> "Any":
    """Import the application's side when it is used, because a tracer starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'usdtkit' has no attribute {name!r}")
    if name in ("Probe", "Provider", "argument"):
        from usdtkit.probes import provider

        return getattr(provider, name)
    from usdtkit.probes import types

    return getattr(types, name)
