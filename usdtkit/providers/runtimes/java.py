"""Java on HotSpot: what its probes tell, and how a JVM must be started for some of them.

The facts come from HotSpot's own description of its probes, and from trying Debian's build of OpenJDK 17.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.language import (
    CallProbes,
    CollectionProbes,
    Language,
    ObjectProbe,
    StartCondition,
    ThreadProbe,
)

# The environment variables in which a JVM finds more options.
_MORE_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


def _condition(probes: tuple[str, ...], option: str) -> StartCondition:
    return StartCondition(
        probes,
        (f"-XX:+{option}", "-XX:+ExtendedDTraceProbes"),
        _MORE_OPTIONS,
        hint=f"start it as java -XX:+{option} … (older JDKs: -XX:+ExtendedDTraceProbes)",
    )


LANGUAGE = Language(
    "java",
    programs=("java",),
    libraries=("libjvm.so",),
    calls=(CallProbes("hotspot:method__entry", "hotspot:method__return", "class_name", "method"),),
    collections=(
        CollectionProbes("hotspot:gc__begin", "hotspot:gc__end", "collection"),
        CollectionProbes("hotspot:mem__pool__gc__begin", "hotspot:mem__pool__gc__end", "pool", ("manager", "pool")),
    ),
    # The probe has a size, but in JDK 17 it is whatever was in a register when the interpreter made the object.
    objects=(ObjectProbe("hotspot:object__alloc", type="class_name"),),
    threads=(
        ThreadProbe("hotspot:thread__start", "thread start", "name"),
        ThreadProbe("hotspot:thread__stop", "thread stop", "name"),
    ),
    loaded=("hotspot:class__loaded",),
    exceptions=("hotspot_jni:ExceptionOccurred__entry",),
    conditions=(
        _condition(("hotspot:method__entry", "hotspot:method__return"), "DTraceMethodProbes"),
        _condition(("hotspot:object__alloc",), "DTraceAllocProbes"),
    ),
    beside="../lib/server/libjvm.so",
    hint="a JVM has probes if it was built with --enable-dtrace, as Debian's is",
)
