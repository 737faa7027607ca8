"""Node.js, which carries no USDT probes since version 19: the names of its programs, and its garbage collector.

Names of functions are mangled, with a glob for what differs between versions. Tried on Node 18 (Debian's
libnode.so.108) and 20. Source: V8's `src/heap/heap.h`; the numbers of collectors and reasons never change, because they
go into Chromium's statistics. `usdtkit.providers.node` knows Node's HTTP server.
"""

# The names of the program; where its code lies: in it, or as with Debian's in a library of its own.
PROGRAMS = ("node", "nodejs")
LIBRARIES = ("node", "libnode.so")
# The same as globs of paths: a container has its own, and not where the programs of this machine are.
PATHS = ("*/node", "*/nodejs", "*/libnode.so*")

# Heap::PerformGarbageCollection(this, collector, reason, …): the mutator stands still while it runs.
COLLECT_GARBAGE = (
    "_ZN2v88internal4Heap24PerformGarbageCollectionENS0_16GarbageCollectorENS0_23GarbageCollectionReasonE*"
)
COLLECTORS = ("scavenge", "mark-compact", "minor mark-compact")
COLLECTION_REASONS = (
    *("unknown", "allocation failure", "allocation limit", "context disposal", "counters extension", "debugger"),
    *("deserialize", "external memory pressure", "finalize marking via stack guard", "finalize marking via task"),
    *("full hash-table", "heap profiler", "task", "last resort", "low memory notification", "make heap iterable"),
    *("memory pressure", "memory reducer", "runtime", "sampling profiler", "snapshot creator", "testing"),
    *("external finalize", "global allocation limit", "measure memory", "background allocation failure"),
    *("finalize concurrent minor mark-sweep", "C++ heap allocation failure"),
)
COLLECTION = (("collector", 2, COLLECTORS), ("reason", 3, COLLECTION_REASONS))
