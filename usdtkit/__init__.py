"""usdtkit: probes for applications, and the tracing of them, by USDT, uprobes and eBPF.

The application's side; a probe that nobody traces costs about as much as comparing one byte:

    from usdtkit import Provider

    shop = Provider("shop")
    order_start = shop.probe("order__start", doc="An order arrives.", order_id="u64", customer="str")
    shop.load()                     # visible to tracers from here on; the first fire would do it too

    order_start(42, "ada")
    if order_start.enabled:         # for arguments that are costly to make
        order_start(42, expensive())

The tracer's side is `usdtkit.trace`, which applications do not import; its command: `usdtkit trace shop:order__start`.
"""

from usdtkit.errors import UsdtkitError
from usdtkit.probes import Probe, Provider
from usdtkit.version import VERSION as __version__

__all__ = ["Probe", "Provider", "UsdtkitError", "__version__"]
