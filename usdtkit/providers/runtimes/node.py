"""Node.js: it has had no probes since version 19, so functions of V8 stand in for them.

`usdtkit.signatures.node` has the names of these functions and their arguments.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.language import CollectionProbes, Language
from usdtkit.signatures import node

LANGUAGE = Language(
    "node",
    programs=node.PROGRAMS,
    libraries=("libnode.so*",),
    collections=(CollectionProbes(node.COLLECT_GARBAGE, "", "collection", ("collector",), node.COLLECTION),),
    code=node.LIBRARIES,
    hint="Node has had no probes since version 19: usdtkit nodegc and nodehttp trace its functions, and stackcount "
    "shows JavaScript functions if Node was started with --perf-basic-prof",
)
