"""What a session will attach to, and the account of what became of every hit.

Input: the hooks and resolved places of `definition`. Output: sites with cookies for `usdtkit.kernel.attach`, the values
of `Session.plan`, and the numbers of `Session.summary`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from usdtkit.bpf import program as programs
from usdtkit.bpf.cookie import function_cookie, usdt_cookie
from usdtkit.bpf.operands import pack_operands
from usdtkit.errors import UsdtkitError
from usdtkit.files import FileKey, OpenFile
from usdtkit.model import UserPlace
from usdtkit.records import asdict, dataclass
from usdtkit.trace.specs import Resolved
from usdtkit.trace.unseen import CutStacks, Unseen

if TYPE_CHECKING:
    from usdtkit.elf.instructions import Cost
    from usdtkit.kernel.attach.sites import FileSites, KernelSite, UprobeSite
    from usdtkit.model import Argument
    from usdtkit.trace.stacks import Stacks


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of every hit.

    - `hits`: hits that reached a source; of a pair, those that were completed
    - `received`, `lost`: events that were read, and that found no room in the ring buffer
    - `full`: hits that were not followed because a table was full
    - `unmatched`: ends without a start
    - `overflow`: starts that were given up because too many were open in one thread
    - `abandoned`: starts whose end cannot come any more, because the thread or process ended, because the call was left
      by an exception or longjmp, or because the key started again
    - `unreadable`: values that could not be read
    - `no_stack`: hits without a stack, because there was no room for it or because the process is a 32-bit one
    - `stacks`: different stacks that were taken
    - `cut_stacks`: those of them that are known to lack their outer calls, by reason
    - `untabled`: files whose functions are followed by frame pointers, because their tables had no room
    - `open`: calls of functions that had not ended when this was read
    - `rejected`: calls of probes that were not fired because their values did not fit; programs that use usdtkit count
      them
    - `files`, `processes`: from how many of them hits came, each up to 16,384 pairs of the two
    - `unlooked`: files and processes that started meanwhile and could not be looked at
    - `unarmed`: processes that run what is traced but have no breakpoints there; `Session.presence.unarmed` lists them
    - `command_status`: how the session's command ended by itself, as an exit status or the negative number of a signal.
      None while the command runs, and where there is none
    - `unseen`: what there was that the trace does not show, with how often and why
    - `duration_s`: seconds since the session was attached, until it was detached
    """

    hits: int
    received: int
    lost: int
    full: int
    unmatched: int
    overflow: int
    abandoned: int
    unreadable: int
    no_stack: int
    stacks: int
    cut_stacks: tuple[CutStacks, ...]
    untabled: int
    open: int
    rejected: int
    files: int
    processes: int
    unlooked: int
    unarmed: int
    command_status: int | None
    unseen: tuple[Unseen, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One site that a session attaches to.

    - `kind`: usdt, entry, return or clock
    - `path`: the file; "" for a clock, which is in none
    - `file_offset`, `semaphore_offset`: in the file; the latter is 0 where the site has no semaphore
    - `pids`: the processes; none means every process
    - `arguments`: those that the source can be asked for
    - `cost`: what the kernel does at a hit. An instruction that is "stepped" costs 10 to 40 times as much as one that
      is "emulated" (docs/elf.md). There must be no probe on one that is "refused", "mistaken" for another, or "held" (a
      system call, which no signal could then interrupt). A clock has "interrupt": the timer interrupts the program for
      1 to 2 microseconds, and no instruction is replaced.
    - `returns`, `why`: how the function's returns are observed, as `usdtkit.model.ReturnsBy` has it, and the reason
    """

    kind: str
    name: str
    path: str
    file_offset: int
    semaphore_offset: int
    pids: tuple[int, ...]
    arguments: tuple[Argument, ...]
    cost: Cost | Literal["interrupt"]
    returns: str
    why: str

    def to_json(self) -> dict[str, object]:
        """The site as a JSON object."""
        arguments = [{"name": argument.name, "type": argument.declared} for argument in self.arguments]
        return {**asdict(self), "arguments": arguments}


class Plan:
    """What is given to the kernel, for the places of a session's hooks. More places can be added while it runs.

    - `kernel_sites`: those of sources that are in no file
    - `operands`: the entries of the map `operands`
    - `probe_names`: the names of probes, by number
    - `rejected`: by number of its sites, the name of a probe whose calls that could not be fired are counted
    - `file_numbers`: by device and inode, the numbers by which the program says from which file a hit came; 0 is none
    """

    def __init__(self, stacks: Stacks | None) -> None:
        """With `stacks`, USDT sites that begin a function are marked."""
        self.kernel_sites: list[KernelSite] = []
        self.probe_names: dict[int, str] = {}
        self.rejected: dict[int, str] = {}
        self.file_numbers: dict[FileKey, int] = {}
        self._stacks = stacks
        self._lists: dict[tuple[bytes, ...], int] = {}
        # A hook has numbers that no other has, in a row as far as its places are known at the start, so that a cookie
        # says which hook is meant. Only a call's return has the numbers of its entry, because they meet by these.
        self._names: dict[tuple[int, str], int] = {}
        # Two paths may lead to one file, and a place that a hook is attached to twice would count twice.
        self._placed: set[tuple[int, FileKey, int, str, int]] = set()

    @property
    def operands(self) -> list[bytes]:
        """The entries of the map `operands`, in the order of their numbers."""
        return [entry for entries in self._lists for entry in entries]

    def add(self, places: Iterable[tuple[programs.Hook, Resolved]]) -> dict[OpenFile, FileSites]:
        """The sites of hooks that were not added before, by file."""
        # lazy: 1 ms with the compiled shim, and help has no sites
        from usdtkit.kernel.attach.sites import FileSites, KernelSite

        sites: dict[OpenFile, FileSites] = {}
        places = list(places)
        for hook, resolved in places:
            for place in resolved.places:
                if not isinstance(place, UserPlace):
                    self.kernel_sites.append(
                        KernelSite(hook.function, place, function_cookie(self._number(hook, place.name)))
                    )
                    continue
                opened = place.opened
                file = sites.get(opened) or FileSites()
                if self._add(hook, place, opened, file):
                    sites[opened] = file
                if place.file is not None:
                    file.handles.append(place.file)
        self._count_rejected(places, sites)
        return sites

    def _number(self, hook: programs.Hook, name: str) -> int:
        number = self._names.setdefault(((hook.call or hook).index, name), len(self._names))
        self.probe_names.setdefault(number, name)
        return number

    def _add(self, hook: programs.Hook, place: UserPlace, opened: OpenFile, file: FileSites) -> bool:
        """Whether the place was not added before."""
        from usdtkit.kernel.attach.sites import UprobeSite

        where = hook.index, opened.key, place.file_offset, place.name, place.flags
        if where in self._placed:
            return False
        self._placed.add(where)
        name = self._number(hook, place.name)
        if hook.kind == "usdt":
            packed = tuple(pack_operands(place.operands, hook.machine))
            at_entry = self._stacks is not None and self._stacks.begins_function(place)
            cookie = usdt_cookie(name, self._lists.setdefault(packed, len(self._lists)), at_entry)
        else:
            is_exit = hook.kind == "return" and place.returns == "sites"
            cookie = function_cookie(name, place.flags, is_exit=is_exit)
        number = self.file_numbers.setdefault(opened.key, len(self.file_numbers) + 1)
        site = UprobeSite(place.file_offset, place.semaphore_offset, cookie, number)
        if place.returns == "tail":
            file.add_tail(hook.function, site)
        elif place.returns != "probes":
            file.add(hook.function, site)
        elif hook.call is not None:  # the entry's places are the same ones
            file.add_call(hook.call.function, hook.function, site)
        return True

    def _count_rejected(
        self, places: Sequence[tuple[programs.Hook, Resolved]], sites: dict[OpenFile, FileSites]
    ) -> None:
        """Add the sites for calls that could not be fired: each once, however many sources have its probe."""
        from usdtkit.kernel.attach.sites import UprobeSite
        from usdtkit.kernel.rejections import FIRST_NUMBER, REJECTED

        rejected: dict[tuple[OpenFile, int], str] = {}
        for _, resolved in places:
            for place in resolved.user_places if resolved.kind == "usdt" else ():
                if place.rejected_offset and place.opened in sites:
                    rejected.setdefault((place.opened, place.rejected_offset), place.name)
        counting: dict[OpenFile, list[UprobeSite]] = {}
        numbers = {name: number for number, name in self.rejected.items()}
        for (opened, offset), name in rejected.items():
            number = numbers.setdefault(name, len(numbers))
            self.rejected[number] = name
            counting.setdefault(opened, []).append(UprobeSite(offset, 0, usdt_cookie(FIRST_NUMBER + number, 0)))
        for opened, counted in counting.items():
            # Before all others, because a program may call a probe as soon as it sees that it is traced.
            sites[opened].plain = {REJECTED: counted, **sites[opened].plain}


def planned(hooks: list[programs.Hook], places: list[Resolved], pids: tuple[int, ...]) -> list[Planned]:
    """Every site of a session's hooks, with what a hit there costs."""
    from usdtkit.elf.image import Image
    from usdtkit.elf.sites import cost

    costs: dict[UserPlace, Cost] = {}
    by_file: dict[OpenFile | str, list[UserPlace]] = {}
    for resolved in places:
        for place in resolved.user_places:
            by_file.setdefault(place.file or place.path, []).append(place)
    for in_file in by_file.values():
        try:
            with Image(in_file[0].path, in_file[0].opened) as image:
                costs.update({place: cost(image, place.file_offset) for place in in_file})
        except UsdtkitError:
            costs.update(dict.fromkeys(in_file, "unknown"))
    return [
        Planned(
            *(hook.kind, place.name, place.path, place.file_offset, place.semaphore_offset, pids),
            *(hook.arguments, costs[place], place.returns, place.why),
        )
        if isinstance(place, UserPlace)
        else Planned(hook.kind, place.name, "", 0, 0, pids, (), "interrupt", "", "")
        for hook, resolved in zip(hooks, places, strict=True)
        for place in resolved.places
    ]


def totals(
    hooks: Sequence[programs.Hook], stats: Iterable[tuple[bytes, bytes]], calls: Mapping[int, int]
) -> dict[str, int]:
    """The sums of the hooks' counters, by the names of COUNTERS, and how many calls are `open`.

    `stats` are the entries of the map of that name, `calls` the numbers of open calls by the hook of their entry. A
    call that was entered, has not returned and is not open was left in another way, which no hook sees: it is
    "abandoned".
    """
    total = dict.fromkeys(programs.COUNTERS, 0)
    hits = [0] * len(hooks)
    for key, values in stats:
        numbers = memoryview(values).cast("Q")  # of each CPU in turn
        stride = programs.COUNTERS_SIZE // numbers.itemsize
        index = int.from_bytes(key, "little")
        hits[index] = sum(numbers[programs.COUNTERS.index("hits") :: stride])
        for counter, name in enumerate(programs.COUNTERS):
            if name != "hits" or hooks[index].is_result:
                total[name] += sum(numbers[counter::stride])
    for hook in hooks:
        if hook.counts_calls and hook.call is not None:
            entered = hook.call.index
            total["abandoned"] += max(0, hits[entered] - hits[hook.index] - calls.get(entered, 0))
    return {**total, "open": sum(calls.values())}
