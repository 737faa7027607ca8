"""Attach to probes and functions, from Python.

    from usdtkit import trace
    from usdtkit.trace import cstr, ms, usdt

    with trace.Session(pid=1234) as session:
        query = session.pair(usdt("mysql:query__start"), usdt("mysql:query__done"), keep=["query"])
        query.where(query.latency > ms(1)).emit("latency", "query", "comm")
        for event in session:
            print(event.latency_ns, event.query)

A session takes sources (`usdt`, `uprobe`, `uretprobe`, `clock`, `pair`), each with actions: `emit` sends events, which
iteration yields (`batches`: as columns); `count`, `sum`, `hist` and `stats` summarise in the kernel. Values and
conditions are expressions; `ustack` is the calls that led to a hit, a `Stack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from usdtkit.bpf.expressions import (
    Expression,
    ancestor,
    arg,
    buffer,
    caller,
    cgroup,
    comm,
    cpu,
    cstr,
    deref,
    gid,
    goid,
    interned,
    ip,
    latency,
    ms,
    now,
    pid,
    probe,
    pycaller,
    retval,
    tid,
    uid,
    us,
    ustack,
)
from usdtkit.bpf.scanner import Scanner
from usdtkit.model import Clock, PythonCaller, Truncated, TruncatedBytes
from usdtkit.trace.aggregations import Counts, Distribution, Histogram, Statistics, StatisticsTable, Sums
from usdtkit.trace.events import Columns, Event, Texts, wall_time
from usdtkit.trace.internedtexts import OTHER_TEXTS
from usdtkit.trace.kernelmap import KernelMap
from usdtkit.trace.plan import Planned, Summary
from usdtkit.trace.session import Session
from usdtkit.trace.sources import Pair, Source
from usdtkit.trace.specs import FunctionSpec, Resolved, Sought, UsdtSpec, clock, uprobe, uretprobe, usdt
from usdtkit.trace.threadvalues import ThreadKind, ThreadValues
from usdtkit.trace.together import Sources
from usdtkit.trace.unseen import CutStacks, Unseen

if TYPE_CHECKING:
    from usdtkit.trace.memory import Frame
    from usdtkit.trace.stacks import Stack

__all__ = [
    "OTHER_TEXTS", "Clock", "Columns", "Counts", "CutStacks", "Distribution", "Event", "Expression", "Frame",
    "FunctionSpec", "Histogram", "KernelMap", "Pair", "Planned", "PythonCaller", "Resolved", "Scanner", "Session",
    "Sought", "Source", "Sources", "Stack", "Statistics", "StatisticsTable", "Summary", "Sums", "Texts",
    "ThreadKind", "ThreadValues", "Truncated", "TruncatedBytes", "Unseen", "UsdtSpec", "ancestor", "arg", "buffer",
    "caller", "cgroup", "clock", "comm", "cpu", "cstr", "deref", "gid", "goid", "interned", "ip", "latency", "ms",
    "now", "pid", "probe", "pycaller", "retval", "tid", "uid", "uprobe", "uretprobe", "us", "usdt", "ustack",
    "wall_time",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import the classes for stacks when they are used, because most sessions read no stacks."""
    if name == "Stack":
        from usdtkit.trace.stacks import Stack

        return Stack
    if name == "Frame":
        from usdtkit.trace.memory import Frame

        return Frame
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
