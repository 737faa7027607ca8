"""The provider `python`: the probes of CPython itself and more, also on a CPython that was built without them.

Input: sys.monitoring (from 3.12 on) or the profile and trace functions (before), and gc, importlib and _thread. Output:
probes with the names and arguments of CPython's own, so that tools for those work. `watcher` says which of them are
traced, the switches here set only the hooks that these need, and the C functions of `usdtkit._python` fire.
"""

from __future__ import annotations

import _thread
import gc
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Set
from typing import Any

from usdtkit.errors import UnsupportedError, UsageError, UsdtkitError
from usdtkit.instrument import check_objects, watcher
from usdtkit.instrument.engagement import engaged, not_engaged
from usdtkit.instrument.watcher import Switch, native
from usdtkit.probes.compiled import counters
from usdtkit.probes.drops import warn
from usdtkit.probes.image import symbol_name
from usdtkit.probes.namesakes import has_given_way
from usdtkit.probes.provider import Probe
from usdtkit.probes.provider import ready_made as Provider
from usdtkit.signatures.python import PROBES as ARGUMENTS

__all__ = ["install", "traced"]

PROVIDER = watcher.LANGUAGE
_DOCS = {
    "function__entry": "A function is called, or a generator or coroutine resumes.",
    "function__return": "A function returns, yields, or an exception leaves it.",
    "line": "A line is about to run.",
    "gc__start": "A garbage collection begins.",
    "gc__done": "A garbage collection has ended.",
    "import__find__load__start": "The import of a module begins that is not loaded yet.",
    "import__find__load__done": "The import has ended; found says whether it has succeeded.",
    "audit": "An audit event; arguments is the address of a tuple.",
    "exception__raise": "An exception is raised.",
    "exception__unwind": "An exception leaves a function.",
    "exception__handled": "An except or finally clause catches an exception.",
    "generator__resume": "A generator resumes after a yield.",
    "generator__yield": "A generator yields.",
    "coroutine__resume": "A coroutine or an async generator resumes.",
    "coroutine__yield": "A coroutine or an async generator waits or yields.",
    "cfunction__call": "A function written in C is called; file and line are the caller's.",
    "cfunction__return": "A function written in C returns.",
    "cfunction__raise": "An exception leaves a function written in C.",
    "thread__start": "A thread begins.",
    "thread__stop": "A thread ends.",
    "object__new": "An object is created; size is that of its type, in bytes.",
    "object__delete": "An object is deleted.",
}
_PROBES: dict[str, tuple[dict[str, Any], str]] = {
    name: ({argument: "u64" if kind == "pointer" else kind for argument, kind in ARGUMENTS[name]}, doc)
    for name, doc in _DOCS.items()
}
_OBJECTS = {"object__new", "object__delete"}

# The probes that need each event of sys.monitoring.
_EVENTS = {
    "PY_START": {"function__entry"},
    "PY_RESUME": {"function__entry", "generator__resume", "coroutine__resume"},
    "PY_THROW": {"function__entry", "generator__resume", "coroutine__resume"},
    "PY_RETURN": {"function__return"},
    "PY_YIELD": {"function__return", "generator__yield", "coroutine__yield"},
    "PY_UNWIND": {"function__return", "exception__unwind"},
    "RAISE": {"exception__raise"},
    "EXCEPTION_HANDLED": {"exception__handled"},
    "LINE": {"line"},
    "CALL": {"cfunction__call", "cfunction__return", "cfunction__raise"},
}
# Events that come with CALL, and that cannot be set by themselves.
_WITH_CALL = ("C_RETURN", "C_RAISE")
# The probes that need the older hooks.
_TRACE_HOOK = {"line", "exception__raise", "exception__unwind"}
_PROFILE_HOOK = set().union(*_EVENTS.values()) - {"line", "exception__raise", "exception__handled"}
# Debuggers, coverage, profilers and optimisers use 0, 1, 2 and 5 by convention, so these come last.
_TOOL_IDS = (4, 3, 5, 1, 2)
_TOOL = "usdtkit"

_installed: tuple[tuple[str, ...], tuple[str, ...], bool] | None = None


def install(*, only: Iterable[str] = (), skip: Iterable[str] = (), objects: bool = False) -> None:
    """Publish the provider `python` in this process and in those that it forks. A second call does nothing.

    `only` and `skip` are globs of file names (`*/shop/*.py`; `*` matches slashes too). Code is traced if its file
    matches one of `only`, if there are any, and none of `skip`. `objects` publishes object__new and object__delete too,
    from CPython 3.13 on. Raises UsageError if a second call has other options than the first, and UnsupportedError.
    """
    global _installed
    options = (tuple(only), tuple(skip), objects)
    if _installed is not None:
        if _installed != options:
            raise UsageError("the Python probes are installed with other options", hint="install them in one place")
        return
    if sys.implementation.name != "cpython":
        raise UnsupportedError(f"the Python probes need CPython, and this is {sys.implementation.name}")
    if objects:
        check_objects()
    implemented = _own_probes()
    provider = Provider(PROVIDER)
    probes = [
        provider.probe(name, arguments, doc=doc)
        for name, (arguments, doc) in _PROBES.items()
        if name not in implemented and _can_fire(name, objects)
    ]
    provider.load()
    _installed = options
    if has_given_way(PROVIDER):
        return
    try:
        native.filter(*options[:2])
        _bind(probes, implemented)
    except (OSError, ValueError) as error:
        raise UsdtkitError(f"the Python probes cannot be installed: {error}") from error
    engaged(PROVIDER, "sys", ["monitoring"] if sys.version_info >= (3, 12) else ["setprofile", "settrace"])
    watcher.tell({probe.name: probe for probe in probes}, set())
    for switch in _all_switches(implemented.keys()):
        watcher.add(switch)


def traced() -> frozenset[str]:
    """Return the probes that this process has set hooks for: those that were traced at most 50 ms ago."""
    return watcher.traced(native.PROBES)


def _can_fire(name: str, objects: bool) -> bool:
    if name == "exception__handled":
        return sys.version_info >= (3, 12)
    return objects or name not in _OBJECTS


def _own_probes() -> dict[str, tuple[int, int]]:
    """Return the probes that the interpreter was built with: the address of a site of each, and its byte in the file.

    They are not published, because each event would then be reported twice.
    """
    if not sysconfig.get_config_var("WITH_DTRACE"):
        return {}
    # Imported only if they are needed, because a start has to wait for them.
    from usdtkit.elf.image import Image
    from usdtkit.elf.notes import read_probes

    with Image.open(native.interpreter()) as image:
        # A tracer attaches to all sites of a probe, so one of them is enough to see it.
        sites = {probe.name: probe.sites[0] for probe in read_probes(image) if probe.provider == PROVIDER}
        return {name: (site.address, image.read(site.file_offset, 1)[0]) for name, site in sites.items()}


def _bind(probes: list[Probe[...]], implemented: dict[str, tuple[int, int]]) -> None:
    for probe in probes:
        if probe.path is None:
            raise OSError("their file is not loaded")
        native.bind(probe.name, probe.path, symbol_name(PROVIDER, probe.name), probe.pristine, counters(probe))
    for name in implemented.keys() & _PROBES.keys():
        native.bind_interpreter(name, *implemented[name])


# All that follows runs in the watcher's thread when a tracer has come or gone.


class _Monitoring:
    """The events of sys.monitoring, each set while one of its probes is traced. A tool id is only used during that
    time."""

    def __init__(self, implemented: Set[str]) -> None:
        self._own = implemented
        self._tool: int | None = None

    def set(self, names: Set[str], /) -> None:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        needed = [event for event, probes in _EVENTS.items() if not probes.isdisjoint(names - self._own)]
        if "LINE" in needed and "PY_START" not in needed:
            # From CPython 3.13 on, without it the lines that a function begins with are not reported: the only line of
            # a function of one line, for example.
            needed.append("PY_START")
        if needed and self._tool is None:
            self._tool = self._reserve_tool(monitoring)
        if self._tool is None:
            return
        events = monitoring.events
        if needed:
            for event in (*_EVENTS, *_WITH_CALL):
                monitoring.register_callback(self._tool, getattr(events, event), getattr(native, event.lower()))
        monitoring.set_events(self._tool, sum(getattr(events, event) for event in needed))
        if not needed:
            for event in (*_EVENTS, *_WITH_CALL):
                monitoring.register_callback(self._tool, getattr(events, event), None)
            if _installed is not None and any(_installed[:2]):
                monitoring.restart_events()  # the next user of the tool id must see the code that our filters excluded
            monitoring.free_tool_id(self._tool)
            self._tool = None

    @staticmethod
    def _reserve_tool(monitoring: Any) -> int | None:
        for number in _TOOL_IDS:
            try:
                monitoring.use_tool_id(number, _TOOL)
            except ValueError:
                continue
            engaged(PROVIDER, "sys", ["monitoring"])
            return number
        not_engaged(PROVIDER, "sys", "sys.monitoring has no free tool id")
        warn("sys.monitoring has no free tool id: Python functions cannot be traced")
        return None


class _Hooks:
    """The profile and trace functions of all threads, before there was sys.monitoring."""

    def __init__(self, implemented: Set[str]) -> None:
        self._own = implemented
        self._current = (False, False)

    def set(self, names: Set[str], /) -> None:
        names = names - self._own
        needed = (not _PROFILE_HOOK.isdisjoint(names), not _TRACE_HOOK.isdisjoint(names))
        if needed != self._current:
            native.hook(*needed)
            self._current = needed


def _all_switches(implemented: Set[str]) -> list[Switch | _Monitoring | _Hooks]:
    """Return the hooks that this interpreter needs. `own` are the probes that it was built with."""
    if sys.version_info[:2] == (3, 11):
        # Its own probes of functions and lines fire only in threads that have a hook, so one is set.
        implemented -= {"function__entry", "function__return", "line"}
    threads = {"thread__start", "thread__stop"}
    frames: _Monitoring | _Hooks
    if sys.version_info >= (3, 12):
        frames = _Monitoring(implemented)
    else:
        frames = _Hooks(implemented)
        threads |= _PROFILE_HOOK | _TRACE_HOOK  # a new thread begins without hooks
    return [
        Switch({"gc__start", "gc__done"} - implemented, _collections),
        Switch({"import__find__load__start", "import__find__load__done"} - implemented, _imports()),
        Switch({"audit"} - implemented, lambda on: native.audit()),
        Switch(threads, _threads()),
        Switch(_OBJECTS, native.objects),
        frames,
    ]


def _collections(on: bool) -> None:
    if on:
        gc.callbacks.append(native.collection)
    else:
        gc.callbacks.remove(native.collection)


def _imports() -> Callable[[bool], None]:
    """Return the switch for imports: the interpreter calls this function for modules that are not in sys.modules."""
    module = sys.modules["_frozen_importlib"]
    return watcher.replaced(module, "_find_and_load", lambda original: native.stand_in("find_and_load", original))


def _threads() -> Callable[[bool], None]:
    turns = [
        watcher.replaced(module, name, lambda original: native.stand_in("start_thread", original))
        for module in (_thread, threading)
        for name in ("start_new_thread", "start_joinable_thread", "_start_new_thread", "_start_joinable_thread")
        if hasattr(module, name)
    ]

    def turn(on: bool) -> None:
        for replace in turns:
            replace(on)

    return turn
