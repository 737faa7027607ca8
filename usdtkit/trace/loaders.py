"""Learns the code of a command before it runs: when it begins a program, and when its dynamic linker has mapped others.

Input: `stops` of the command, and a function that looks at what a process has mapped. Output: calls of that function,
each before an instruction of the new code runs, except for the resolvers of indirect functions. The first program of a
command, what that becomes by exec, and what it loads by dlopen are learned like this; what it maps without a dynamic
linker is not. Used by `presence`, for sessions that take stacks by tables.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from usdtkit.elf.image import Image
from usdtkit.elf.loading import notice
from usdtkit.errors import UsdtkitError
from usdtkit.mappedfiles import open_mapping
from usdtkit.maps import Identity, Mapping, executable_mappings, maps_of
from usdtkit.trace.stops import Stops

_COMMON = "/ld-"  # which the path of glibc's dynamic linker has


class Loaders:
    """The dynamic linkers of one command."""

    def __init__(self, stops: Stops, learn: Callable[[int], object]) -> None:
        """UsdtkitError where the kernel does not let us stop the command."""
        self._stops = stops
        self._learn = learn
        self._known: set[Identity] = set()
        stops.stop_at_exec()
        stops.call(self._at_stop)
        # Most programs have the same one as we: what is attached now need not be when the command waits, or when there
        # are no privileges any more.
        for mapping in executable_mappings(maps_of("self")):
            if _COMMON in mapping.name:
                self._attach("self", mapping)

    def _at_stop(self, pid: int) -> None:
        with suppress(OSError, UsdtkitError):  # it has ended, or privileges are missing: then its stacks are cut
            mappings = [mapping for mapping in executable_mappings(maps_of(pid)) if mapping.identity.inode]
            if not any(mapping.identity in self._known for mapping in mappings):
                for mapping in mappings:
                    self._attach(pid, mapping)
        self._learn(pid)

    def _attach(self, pid: int | str, mapping: Mapping) -> None:
        """Stop the command where this file tells debuggers what it has mapped, if it is a dynamic linker."""
        with suppress(UsdtkitError):
            file = open_mapping(pid, mapping)
            with Image(file.path, file) as image:
                found = notice(image)
            if found is not None:
                self._stops.stop_at({file: [found.file_offset]}, found.state)
                self._known.add(mapping.identity)
