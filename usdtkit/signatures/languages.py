"""What the tools for languages know of each: its files, its probes by what one wants to know, and what to do without.

Names of probes are PROVIDER:PROBE, names of arguments those of the provider's own module here. Sources: the runtimes'
own descriptions of their probes, and what their Debian builds did when they were tried.
"""

from __future__ import annotations

from typing import NamedTuple

from usdtkit.signatures import node


class Calls(NamedTuple):
    """A call and its return: which argument names the class, file or package ("" none), and which the function."""

    entry: str
    done: str
    group: str
    name: str


class Span(NamedTuple):
    """Something with a beginning and an end. With `key`, arguments that both have, several may be open at once.

    Without `done`, `start` is a function of one of the language's `code`; `numbers` says which of its arguments are
    worth showing: name, index from 1, and the names of their values.
    """

    start: str
    done: str
    what: str
    key: tuple[str, ...] = ()
    numbers: tuple[tuple[str, int, tuple[str, ...]], ...] = ()


class Objects(NamedTuple):
    """Objects made: the argument that says the type, or a fixed type, and the one that has the size ("" unknown)."""

    probe: str
    type: str = ""
    fixed: str = ""
    size: str = ""


class Threads(NamedTuple):
    """A thread's start or stop, and the argument with its name."""

    probe: str
    kind: str
    name: str


class Switch(NamedTuple):
    """What must be on in a process for some probes to fire.

    One of `options` on its command line (or in the environment variables `read_from`), or `variable` as given.
    """

    probes: tuple[str, ...]
    options: tuple[str, ...] = ()
    read_from: tuple[str, ...] = ()
    variable: str = ""
    hint: str = ""


class Language(NamedTuple):
    """One language. `programs` and `libraries` are globs of the names of files that its processes map.

    The probes of a program that does not run yet are in its own file, in `beside` it, or in the library `linked`. What
    has no probes has functions, in the first of the files `code` that there is.
    """

    name: str
    programs: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    calls: tuple[Calls, ...] = ()
    collections: tuple[Span, ...] = ()
    objects: tuple[Objects, ...] = ()
    threads: tuple[Threads, ...] = ()
    loaded: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    switches: tuple[Switch, ...] = ()
    # Files whose probes of these names never fire: (glob of the file's name, probes); but `unless` it has that one.
    silent: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unless: str = ""
    beside: str = ""
    linked: str = ""
    code: tuple[str, ...] = ()
    hint: str = ""
    # And without these: (probe, what to do).
    hints: tuple[tuple[str, str], ...] = ()
    # What somebody should know who sees fewer calls than there are.
    calls_note: str = ""


_PYTHON_CALLS = ("python:function__entry", "python:function__return", "python:line")
_JVM_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")


def _jvm_switch(probes: tuple[str, ...], option: str) -> Switch:
    return Switch(
        probes,
        (f"-XX:+{option}", "-XX:+ExtendedDTraceProbes"),
        _JVM_OPTIONS,
        hint=f"start it as java -XX:+{option} … (older JDKs: -XX:+ExtendedDTraceProbes)",
    )


LANGUAGES = (
    Language(
        "java",
        programs=("java",),
        libraries=("libjvm.so",),
        calls=(Calls("hotspot:method__entry", "hotspot:method__return", "class_name", "method"),),
        collections=(
            Span("hotspot:gc__begin", "hotspot:gc__end", "collection"),
            Span("hotspot:mem__pool__gc__begin", "hotspot:mem__pool__gc__end", "pool", ("manager", "pool")),
        ),
        # The size is what was in a register where the interpreter of JDK 17 makes the object: no number to sum up.
        objects=(Objects("hotspot:object__alloc", type="class_name"),),
        threads=(
            Threads("hotspot:thread__start", "thread start", "name"),
            Threads("hotspot:thread__stop", "thread stop", "name"),
        ),
        loaded=("hotspot:class__loaded",),
        exceptions=("hotspot_jni:ExceptionOccurred__entry",),
        switches=(
            _jvm_switch(("hotspot:method__entry", "hotspot:method__return"), "DTraceMethodProbes"),
            _jvm_switch(("hotspot:object__alloc",), "DTraceAllocProbes"),
        ),
        beside="../lib/server/libjvm.so",
        hint="a JVM has probes where it was built with them, as Debian's is: --enable-dtrace",
    ),
    Language(
        "python",
        programs=("python", "python[23]*"),
        libraries=("libpython[23]*",),
        calls=(Calls("python:function__entry", "python:function__return", "file", "function"),),
        collections=(Span("python:gc__start", "python:gc__done", "collection"),),
        objects=(Objects("python:object__new", type="type", size="size"),),
        threads=(
            Threads("python:thread__start", "thread start", "name"),
            Threads("python:thread__stop", "thread stop", "name"),
        ),
        loaded=("python:import__find__load__start",),
        exceptions=("python:exception__raise",),
        # Their code is there, and what calls it is not: CPython 3.11. `usdtkit run` hits them, and adds others.
        silent=(("*python3.11*", _PYTHON_CALLS),),
        unless="python:exception__raise",
        hint="start it as usdtkit run PROGRAM.py …, which adds the probes to any CPython",
        hints=(("python:object__new", "start it as usdtkit run --objects PROGRAM.py …, by CPython 3.13 or later"),),
    ),
    Language(
        "ruby",
        programs=("ruby", "ruby[0-9]*"),
        libraries=("libruby*",),
        calls=(
            Calls("ruby:method__entry", "ruby:method__return", "class_name", "method"),
            Calls("ruby:cmethod__entry", "ruby:cmethod__return", "class_name", "method"),
        ),
        collections=(
            Span("ruby:gc__mark__begin", "ruby:gc__mark__end", "mark"),
            Span("ruby:gc__sweep__begin", "ruby:gc__sweep__end", "sweep"),
        ),
        objects=(
            Objects("ruby:object__create", type="class_name"),
            Objects("ruby:string__create", fixed="String", size="length"),
            Objects("ruby:array__create", fixed="Array", size="length"),
            Objects("ruby:hash__create", fixed="Hash", size="length"),
        ),
        loaded=("ruby:require__entry", "ruby:load__entry"),
        exceptions=("ruby:raise",),
        linked="ruby",
        calls_note="Ruby since 2.5 tells of methods that are written in Ruby only while a TracePoint is enabled: "
        "$calls = TracePoint.new(:call, :return) {}; $calls.enable",
        hint="a Ruby has probes where it was built with them, as Debian's is: --enable-dtrace",
    ),
    Language(
        "php",
        programs=("php", "php[0-9]*", "php-fpm*", "php-cgi*"),
        libraries=("libphp*",),
        calls=(Calls("php:function__entry", "php:function__return", "class_name", "function"),),
        loaded=("php:compile__file__entry",),
        exceptions=("php:exception__thrown",),
        switches=(
            Switch(
                (
                    *("php:function__entry", "php:function__return", "php:compile__file__entry"),
                    "php:exception__thrown",
                ),
                variable="USE_ZEND_DTRACE=1",
                hint="start it with USE_ZEND_DTRACE=1 in its environment",
            ),
        ),
        hint="a PHP has probes where it was built with them, as Debian's is: --enable-dtrace",
    ),
    Language(
        "node",
        programs=node.PROGRAMS,
        libraries=("libnode.so*",),
        collections=(Span(node.COLLECT_GARBAGE, "", "collection", ("collector",), node.COLLECTION),),
        code=node.LIBRARIES,
        hint="Node has no probes since version 19: usdtkit nodegc and nodehttp trace its functions, and stackcount "
        "shows those of JavaScript under node --perf-basic-prof",
    ),
    Language(
        "perl",
        programs=("perl", "perl5*"),
        libraries=("libperl.so*",),
        calls=(Calls("perl:sub__entry", "perl:sub__return", "package", "sub"),),
        linked="perl",
        hint="a perl has probes where it was built with -Dusedtrace, and Debian's was not",
    ),
    Language(
        "tcl",
        programs=("tclsh*", "wish*"),
        libraries=("libtcl8*", "libtcl9*"),
        calls=(Calls("tcl:proc__entry", "tcl:proc__return", "", "name"),),
        objects=(Objects("tcl:obj__create", fixed="object"),),
        linked="tcl8.6",
        hint="a Tcl has probes where it was built with --enable-dtrace, and Debian's was not",
    ),
    Language(
        "c",
        programs=(),
        hint="usdtkit funccount PROGRAM:* counts the calls of a program's functions, funclatency times them",
    ),
)
BY_NAME = {language.name: language for language in LANGUAGES}
