"""Language runtimes: Java, Python, Ruby, PHP, Node, Perl, Tcl, and programs in C, which have none.

    from usdtkit import trace
    from usdtkit.providers import runtimes

    with trace.Session(pid=4711) as session:
        runtime = runtimes.of(session)
        latencies = runtime.calls(method="charge").stats("latency", *runtime.names)
        for _ in session.intervals(0.5):
            if slowest := latencies.top(1):
                names, statistics = slowest[0]
                print(runtimes.full_name(names), statistics.average > 0)
                break

`of` finds out which language the processes of a session run. The `Runtime` that it returns has methods for the calls,
the garbage collections, the objects and the threads of a program. `speaking` finds the processes that run a language,
and `Activity` counts what all of them do. Each language has a module with its facts, whose shape `language` describes.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.activity import Activity, ProcessActivity
from usdtkit.providers.runtimes.flow import CallFlow, Step
from usdtkit.providers.runtimes.garbage import GarbageCollection, GarbageCollections
from usdtkit.providers.runtimes.language import Language
from usdtkit.providers.runtimes.languages import LANGUAGES, speaking
from usdtkit.providers.runtimes.objects import Allocations, Objects
from usdtkit.providers.runtimes.runtime import Runtime, full_name, of
from usdtkit.providers.runtimes.threads import ThreadChange, Threads

__all__ = [
    "LANGUAGES",
    "Activity",
    "Allocations",
    "CallFlow",
    "GarbageCollection",
    "GarbageCollections",
    "Language",
    "Objects",
    "ProcessActivity",
    "Runtime",
    "Step",
    "ThreadChange",
    "Threads",
    "full_name",
    "of",
    "speaking",
]
