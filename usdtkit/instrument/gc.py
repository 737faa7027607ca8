"""Garbage collections with their latency: gc:collection.

Input: gc.callbacks, which has an entry while somebody traces. Output: the generation, the numbers of objects that were
collected and that are uncollectable, and nanoseconds. (The provider `python` has gc__start and gc__done, like CPython.)
"""

from __future__ import annotations

import gc
import time
from functools import cache

from usdtkit.instrument import watcher
from usdtkit.instrument.engagement import engaged
from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("gc")
_collection = _provider.probe(
    "collection",
    doc="A collection has ended.",
    generation="u8",
    collected="u64",
    uncollectable="u64",
    latency_ns=argument("u64", unit="ns"),
)
_began: list[int] = []


@cache
def install() -> None:
    """Publish the collections of this process. A second call does nothing."""
    _provider.load()
    watcher.watch(_turn, _collection)
    engaged("gc", "gc", ["callbacks"])


def _turn(on: bool) -> None:
    if on:
        gc.callbacks.append(_called)
    else:
        gc.callbacks.remove(_called)
        _began.clear()


def _called(phase: str, info: dict[str, int]) -> None:
    # One collection runs at a time.
    if phase == "start":
        _began[:] = [time.monotonic_ns()]
    elif _began:
        latency = time.monotonic_ns() - _began.pop()
        _collection(info["generation"], info["collected"], info["uncollectable"], latency)
