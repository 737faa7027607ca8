"""Node.js, which carries no USDT probes since version 19: the functions that stand in for them, and their arguments.

Names are mangled, with a glob for what versions differ in. Tried on Node 18 (Debian's libnode.so.108) and 20. Sources:
V8's `src/heap/heap.h` (the numbers of collectors and reasons go into Chromium's statistics and so never change),
llhttp's `api.h`, and the order of members in Node's `src/node_http_parser.cc` and `src/stream_base.h`.
"""

# The names of the program; where its code lies: in it, or as with Debian's in a library of its own.
PROGRAMS = ("node", "nodejs")
LIBRARIES = ("node", "libnode.so")

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

# llhttp, whose functions begin with the parser: at the start of a connection; with (begin, end) of each piece of a
# request's URL, which is one unless the network split it; and behind the last.
PARSER_INIT, ON_URL, ON_URL_COMPLETE = "llhttp_init", "llhttp__on_url", "llhttp__on_url_complete"
PARSER_METHOD = 73  # llhttp_t.method, one byte
METHODS = (
    *("DELETE", "GET", "HEAD", "POST", "PUT", "CONNECT", "OPTIONS", "TRACE", "COPY", "LOCK", "MKCOL", "MOVE"),
    *("PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "BIND", "REBIND", "UNBIND", "ACL", "REPORT", "MKACTIVITY"),
    *("CHECKOUT", "MERGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PATCH", "PURGE", "MKCALENDAR"),
    *("LINK", "UNLINK", "SOURCE"),
)
# Node's Parser has its llhttp_t behind its StreamListener, whose last two members are the stream and another listener.
PARSER_STREAM = -16

# What writes to a stream: (this, uv_buf_t **, size_t *) to a socket, and (this, request, uv_buf_t *, …) under TLS.
# Virtual, and called through the stream's base class, so that `this` is the stream that PARSER_STREAM leads to.
WRITE = "_ZThn*_N4node15LibuvStreamWrap10DoTryWriteEPP8uv_buf_tPm"
WRITE_TLS = "_ZThn*_N4node6crypto7TLSWrap7DoWriteEPNS_9WriteWrapEP8uv_buf_tmP11uv_stream_s"
