"""A perf event for each site: for kernels without uprobe_multi.

Input: the sites of files, and their programs. Output: descriptors of an event, and of its link where the kernel has
perf links (5.15); else a copy of the program for each cookie, because such an event carries none (4.20).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from functools import cache, partial

from usdtkit._ffi import check, lib
from usdtkit.errors import UnsupportedError
from usdtkit.files import OpenFile
from usdtkit.kernel.attach.sites import REFUSALS, Attached, AttachStep, SitesByFile, UprobeSite, fail
from usdtkit.kernel.features import UPROBE_PMU
from usdtkit.kernel.load import Loaded


class UprobeEvents:
    """Attaches by perf events; descriptors and refusals go to `attached`.

    `method` is "perf_link" or "perf_ioctl"; it changes from the first to the second where the kernel has no links.
    """

    def __init__(self, loaded: Loaded, attached: Attached, method: str) -> None:
        self._loaded = loaded
        self._attached = attached
        self.method = method

    def prepare(self, sites: SitesByFile) -> list[AttachStep]:
        """What is to be attached. The programs are loaded when they are."""
        return [
            AttachStep(file, partial(self._attach, name, file, group, on_return == 1))
            for file, file_sites in sites.items()
            for on_return, programs in enumerate(file_sites.by_direction())
            for name, group in programs.items()
        ]

    def _attach(self, program: str, file: OpenFile, sites: Sequence[UprobeSite], on_return: bool, pid: int) -> int:
        pmu, path = perf_pmu(), file.attach_path.encode()
        count = 0
        for site in sites:
            event = lib.usdtkit_perf_uprobe(*pmu, path, site.file_offset, site.semaphore_offset, on_return, pid)
            if event in REFUSALS:
                self._attached.refuse(file, site, event)
                continue
            if event < 0:
                fail(event, file, pid)
            self._attached.descriptors.append(event)
            if self.method == "perf_link":
                link = lib.usdtkit_link_perf(self._loaded.program(program), event, site.link_cookie)
                if link >= 0:
                    self._attached.descriptors.append(link)
                elif link == -errno.EINVAL:
                    self.method = "perf_ioctl"
                else:
                    fail(link, file, pid)
            if self.method == "perf_ioctl":
                copy = self._loaded.program(program, cookie=site.cookie)
                check(lib.usdtkit_perf_set_program(copy, event), f"attaching to {file.path}")
            check(lib.usdtkit_perf_enable(event), f"attaching to {file.path}")
            count += 1
        return count


@cache
def perf_pmu() -> tuple[int, int, int]:
    """The uprobe PMU's type, the bit that asks for return probes, and the shift of a semaphore's offset, from sysfs."""
    from pathlib import Path  # its import takes long

    pmu = Path(UPROBE_PMU)
    try:
        number = int((pmu / "type").read_text())
        return_bit = int((pmu / "format/retprobe").read_text().partition(":")[2])
        reference = pmu / "format/ref_ctr_offset"
        shift = int(reference.read_text().partition(":")[2].partition("-")[0]) if reference.exists() else 32
    except (OSError, ValueError):
        raise UnsupportedError(
            "this kernel has no uprobes", hint="it needs CONFIG_UPROBES and CONFIG_UPROBE_EVENTS: see usdtkit doctor"
        ) from None
    return number, return_bit, shift
