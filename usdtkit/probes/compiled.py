"""Imports the compiled module `usdtkit._probe`, or `silent` in its place if it cannot be built.

The other modules import it from here, so that only this module decides which of the two is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in usdtkit/__init__.py

try:
    from usdtkit import _probe as native
except ImportError:
    if not TYPE_CHECKING:
        from usdtkit.probes import silent as native

if TYPE_CHECKING:
    from usdtkit._probe import UNTRACED as UNTRACED
    from usdtkit._probe import Declarer as Declarer
    from usdtkit._probe import LiveSpan as LiveSpan
    from usdtkit._probe import Probe as Probe
    from usdtkit._probe import Span as Span
    from usdtkit._probe import SpanByName as SpanByName
    from usdtkit._probe import Traced as Traced
    from usdtkit._probe import counters as counters
    from usdtkit._probe import report as report
    from usdtkit._probe import tell_hooks as tell_hooks
else:
    Declarer, Probe = native.Declarer, native.Probe
    counters, report, tell_hooks = native.counters, native.report, native.tell_hooks
    LiveSpan, Span, SpanByName, Traced, UNTRACED = (
        native.LiveSpan,
        native.Span,
        native.SpanByName,
        native.Traced,
        native.UNTRACED,
    )

__all__ = [
    "UNTRACED",
    "Declarer",
    "LiveSpan",
    "Probe",
    "Span",
    "SpanByName",
    "Traced",
    "counters",
    "native",
    "report",
    "tell_hooks",
]
