"""Imports the compiled module `usdtkit._probe`, or `silent` in its place if it cannot be built.

The other modules import it from here, so that only this module decides which of the two is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    from usdtkit import _probe as native
except ImportError:
    if not TYPE_CHECKING:
        from usdtkit.probes import silent as native

if TYPE_CHECKING:
    from usdtkit._probe import Declarer as Declarer
    from usdtkit._probe import Probe as Probe
    from usdtkit._probe import span_number as span_number
else:
    Declarer, Probe, span_number = native.Declarer, native.Probe, native.span_number

__all__ = ["Declarer", "Probe", "native", "span_number"]
