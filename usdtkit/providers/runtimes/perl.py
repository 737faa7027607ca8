"""Perl: what its probes tell. Debian's build has none."""

from __future__ import annotations

from usdtkit.providers.runtimes.language import CallProbes, Language

LANGUAGE = Language(
    "perl",
    programs=("perl", "perl5*"),
    libraries=("libperl.so*",),
    calls=(CallProbes("perl:sub__entry", "perl:sub__return", "package", "sub"),),
    linked="perl",
    hint="a Perl has probes if it was built with -Dusedtrace, which Debian's is not",
)
