"""The shape of what we know of a language: its files, and the probes that tell what its programs do.

The modules beside this one fill it in, one for each language; `runtime` reads it. A probe is named PROVIDER:PROBE, and
an argument as in the module of `usdtkit.signatures` that describes the provider.
"""

from __future__ import annotations

from usdtkit.records import NamedTuple


class CallProbes(NamedTuple):
    """The probes of one kind of call: its entry, and its return.

    `group` is the argument that names the class, file or package, or "" if there is none. `name` is the argument that
    names the function.
    """

    entry: str
    done: str
    group: str
    name: str


class CollectionProbes(NamedTuple):
    """How one kind of garbage collection is seen: from the probe `start` to the probe `done`.

    Several collections that differ in the arguments `key` can be open in a thread at the same time. If `done` is "",
    then `start` is a function, to be found in one of the language's `code` files. In this case `numbers` lists the
    arguments that are worth showing: a name, the position from 1, and the words for the values from 0 on.
    """

    start: str
    done: str
    what: str
    key: tuple[str, ...] = ()
    numbers: tuple[tuple[str, int, tuple[str, ...]], ...] = ()


class ObjectProbe(NamedTuple):
    """A probe that fires when an object is made.

    The type of the object is in the argument `type`, or is always `fixed`. The argument `size` has the number of bytes,
    and is "" if it is not known.
    """

    probe: str
    type: str = ""
    fixed: str = ""
    size: str = ""


class ThreadProbe(NamedTuple):
    """A probe that fires when a thread starts or stops; `name` is the argument with the thread's name."""

    probe: str
    kind: str
    name: str


class StartCondition(NamedTuple):
    """Some probes fire only in a process that was started for it.

    Either one of `options` must be on the command line, or within one of the environment variables `read_from`; or the
    setting `variable`, such as "NAME=1", must be in the environment.
    """

    probes: tuple[str, ...]
    options: tuple[str, ...] = ()
    read_from: tuple[str, ...] = ()
    variable: str = ""
    hint: str = ""


class SilentProbes(NamedTuple):
    """Probes that are present in files of a name that matches the glob `file`, but never fire.

    The exception is a file that also has the probe `unless`.
    """

    file: str
    probes: tuple[str, ...]
    unless: str


class Language(NamedTuple):
    """What we know of one language.

    `programs` and `libraries` are globs of the names of files that its processes map. The probes of a program that has
    not started yet are in the program's file, in the file `beside` it, or in the shared library `linked`. A language
    without probes may have functions to trace, in the first of the files `code` that exists.

    `hint` says what to do about missing probes in general, and `hints` about some of them in particular.
    `calls_remark` is for a reader who may see fewer calls than were made.
    """

    name: str
    programs: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    calls: tuple[CallProbes, ...] = ()
    collections: tuple[CollectionProbes, ...] = ()
    objects: tuple[ObjectProbe, ...] = ()
    threads: tuple[ThreadProbe, ...] = ()
    loaded: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    conditions: tuple[StartCondition, ...] = ()
    silent: tuple[SilentProbes, ...] = ()
    beside: str = ""
    linked: str = ""
    code: tuple[str, ...] = ()
    hint: str = ""
    hints: tuple[tuple[str, str], ...] = ()
    calls_remark: str = ""
