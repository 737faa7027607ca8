"""CPython: the probes of its own, and those that `usdtkit run` adds.

The facts come from CPython's description of its probes, and from trying Debian's builds.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.language import (
    CallProbes,
    CollectionProbes,
    Language,
    ObjectProbe,
    SilentProbes,
    ThreadProbe,
)
from usdtkit.signatures import python

LANGUAGE = Language(
    "python",
    programs=python.PROGRAMS,
    libraries=python.LIBRARIES,
    calls=(CallProbes("python:function__entry", "python:function__return", "file", "function"),),
    collections=(CollectionProbes("python:gc__start", "python:gc__done", "collection"),),
    objects=(ObjectProbe("python:object__new", type="type", size="size"),),
    threads=(
        ThreadProbe("python:thread__start", "thread start", "name"),
        ThreadProbe("python:thread__stop", "thread stop", "name"),
    ),
    loaded=("python:import__find__load__start",),
    exceptions=("python:exception__raise",),
    # CPython 3.11 has the code of these probes, but nothing calls it. What `usdtkit run` adds does fire.
    silent=(
        SilentProbes(
            "*python3.11*",
            ("python:function__entry", "python:function__return", "python:line"),
            unless="python:exception__raise",
        ),
    ),
    hint="start it as usdtkit run PROGRAM.py …, which adds the probes to any CPython",
    hints=(("python:object__new", "start it as usdtkit run --objects PROGRAM.py …, with CPython 3.13 or later"),),
)
