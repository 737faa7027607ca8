"""Tcl: what its probes tell. Debian's build has none."""

from __future__ import annotations

from usdtkit.providers.runtimes.language import CallProbes, Language, ObjectProbe

LANGUAGE = Language(
    "tcl",
    programs=("tclsh*", "wish*"),
    libraries=("libtcl8*", "libtcl9*"),
    calls=(CallProbes("tcl:proc__entry", "tcl:proc__return", "", "name"),),
    objects=(ObjectProbe("tcl:obj__create", fixed="object"),),
    linked="tcl8.6",
    hint="a Tcl has probes if it was built with --enable-dtrace, which Debian's is not",
)
