"""Ruby's own interpreter: what its probes tell.

The facts come from Ruby's description of its probes, and from trying Debian's build.
"""

from __future__ import annotations

from usdtkit.providers.runtimes.language import CallProbes, CollectionProbes, Language, ObjectProbe

LANGUAGE = Language(
    "ruby",
    programs=("ruby", "ruby[0-9]*"),
    libraries=("libruby*",),
    calls=(
        CallProbes("ruby:method__entry", "ruby:method__return", "class_name", "method"),
        CallProbes("ruby:cmethod__entry", "ruby:cmethod__return", "class_name", "method"),
    ),
    collections=(
        CollectionProbes("ruby:gc__mark__begin", "ruby:gc__mark__end", "mark"),
        CollectionProbes("ruby:gc__sweep__begin", "ruby:gc__sweep__end", "sweep"),
    ),
    objects=(
        ObjectProbe("ruby:object__create", type="class_name"),
        ObjectProbe("ruby:string__create", fixed="String", size="length"),
        ObjectProbe("ruby:array__create", fixed="Array", size="length"),
        ObjectProbe("ruby:hash__create", fixed="Hash", size="length"),
    ),
    loaded=("ruby:require__entry", "ruby:load__entry"),
    exceptions=("ruby:raise",),
    linked="ruby",
    hint="a Ruby has probes if it was built with --enable-dtrace, as Debian's is",
    calls_remark="since version 2.5, Ruby reports methods written in Ruby only while a TracePoint is enabled: "
    "$calls = TracePoint.new(:call, :return) {}; $calls.enable",
)
