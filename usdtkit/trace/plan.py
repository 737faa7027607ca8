"""What a session will attach to, and what became of every hit: the plan before, the account after.

Input: the hooks and resolved places of `definition`. Output: sites with cookies for `bpf.links`, and the values that a
session shows of itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from usdtkit.bpf import program as programs
from usdtkit.bpf.cookie import NAMESAKE_SHIFT, NAMESAKES, function_cookie, usdt_cookie
from usdtkit.bpf.operands import pack_operands
from usdtkit.errors import UsdtkitError
from usdtkit.files import OpenFile
from usdtkit.kernel.links import FileSites, Site
from usdtkit.kernel.rejections import REJECTED
from usdtkit.model import UserPlace
from usdtkit.records import asdict, dataclass
from usdtkit.trace.specs import Resolved

if TYPE_CHECKING:
    from usdtkit.elf.instructions import Cost
    from usdtkit.model import Argument
    from usdtkit.trace.stacks import Stacks


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of every hit.

    `hits` that reached a hook (of a pair: that were completed), events `received` and `lost` for want of room in the
    ring buffer; entries that a full table did not take; ends without a start; starts dropped because too many were
    open in one thread (`overflow`), or because their end cannot come any more (`dropped`: the thread or process has
    ended, the call was left by an exception or longjmp, the key has started again); values that could not be read;
    hits of which no stack could be taken, for want of room or because the process is a 32-bit one. `open` calls of
    functions had neither returned nor been seen to be left when this was read. `rejected` are calls of probes that were
    not fired because their values did not fit, as programs that use usdtkit count them.

    `unarmed` is how many processes run what is traced but have no breakpoints there; `Session.unarmed` lists them.
    `command_status` is how the session's command ended by itself: its exit status, or the negative number of the
    signal. It is None while the command runs, and where there is none.
    """

    hits: int
    received: int
    lost: int
    full: int
    unmatched: int
    overflow: int
    dropped: int
    unreadable: int
    no_stack: int
    open: int
    rejected: int
    unarmed: int
    command_status: int | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One site of a session: `kind` is usdt, entry or return; offsets are the file's; no `pids` means every process.

    `arguments` are those that its source can be asked for. `cost` is what the kernel does at a hit: an instruction that
    is "emulated" costs half a microsecond, one that is "stepped" 7 to 17; where it is "refused", "mistaken" for
    another, or "held" (a system call, which no signal could then interrupt), there must be no probe.
    `returns` says how the returns of the function are seen, and `why`: by "sites",
    which are probes on the instructions with which it leaves, by "probes", the kernel's return probes, or at a jump to
    its last callee by a return probe that is set there ("tail").
    """

    kind: str
    name: str
    path: str
    file_offset: int
    semaphore_offset: int
    pids: tuple[int, ...]
    arguments: tuple[Argument, ...]
    cost: Cost
    returns: str
    why: str

    def to_json(self) -> dict[str, object]:
        """As an object of JSON."""
        return {**asdict(self), "arguments": [{"name": each.name, "type": each.type} for each in self.arguments]}


@dataclass
class Plan:
    """Where everything goes: sites by file, and the entries of `operands`.

    `numbers` has the probe of each hook that its sites are given which come later. `rejected`: of each number of a site
    for calls that could not be fired, the name of its probe.
    """

    sites: dict[OpenFile, FileSites]
    operands: list[bytes]
    probe_names: list[str]
    numbers: list[int]
    rejected: dict[int, str]


def planned(hooks: list[programs.Hook], places: list[Resolved], pids: tuple[int, ...]) -> list[Planned]:
    """Every site of a session's hooks, with what a hit there costs."""
    from usdtkit.elf.image import Image
    from usdtkit.elf.sites import cost

    costs: dict[UserPlace, Cost] = {}
    wanted: dict[OpenFile | str, list[UserPlace]] = {}
    for resolved in places:
        for place in resolved.places:
            wanted.setdefault(place.file or place.path, []).append(place)
    for same in wanted.values():
        try:
            with Image(same[0].path, same[0].opened) as image:
                costs.update({place: cost(image, place.file_offset) for place in same})
        except UsdtkitError:
            costs.update(dict.fromkeys(same, "unknown"))
    return [
        Planned(
            *(hook.kind, place.name, place.path, place.file_offset, place.semaphore_offset, pids),
            *(hook.arguments, costs[place], place.returns, place.why),
        )
        for hook, resolved in zip(hooks, places, strict=True)
        for place in resolved.places
    ]


def make_plan(hooks: list[programs.Hook], places: list[Resolved], stacks: Stacks | None) -> Plan:
    """The plan of a session's hooks, each with its places; with `stacks`, functions' entries are marked for them."""
    sites: dict[OpenFile, FileSites] = {}
    lists: dict[tuple[bytes, ...], int] = {}
    # Each hook has numbers of its own, in a row, so that a cookie says which hook is meant; a call's return has those
    # of its entry, by which they meet.
    names: dict[tuple[int, str], int] = {}
    numbers: list[int] = []
    # Of each hook, as two paths may lead to one file: a place that was attached to twice would count twice.
    placed: set[tuple[int, OpenFile, int, str, int]] = set()
    namesakes: dict[tuple[int, OpenFile, str], dict[int, int]] = {}
    for hook, resolved in zip(hooks, places, strict=True):
        owner = hook.call or hook
        first = resolved.places[0].name if resolved.places else resolved.what
        numbers.append(names.setdefault((owner.index, first), len(names)))
        for place in resolved.places:
            opened = place.opened
            flags = place.flags
            if place.function is not None:
                same = namesakes.setdefault((owner.index, opened, place.name), {})
                flags |= same.setdefault(place.function.file_offset, len(same)) % NAMESAKES << NAMESAKE_SHIFT
            where = hook.index, opened, place.file_offset, place.name, flags
            if where in placed:
                continue
            placed.add(where)
            name = names.setdefault((owner.index, place.name), len(names))
            if hook.kind == "usdt":
                packed = tuple(pack_operands(place.operands, hook.machine))
                at_entry = stacks is not None and stacks.begins_function(place)
                cookie = usdt_cookie(name, lists.setdefault(packed, len(lists)), at_entry)
            else:
                is_exit = hook.kind == "return" and place.returns == "sites"
                cookie = function_cookie(name, flags, is_exit=is_exit)
            site = Site(place.file_offset, place.semaphore_offset, cookie)
            file = sites.setdefault(opened, FileSites())
            if place.returns == "tail":
                file.add_tail(hook.function, site)
            elif place.returns != "probes":
                file.add(hook.function, site)
            elif hook.call is not None:  # its entries are the same places
                file.add_call(hook.call.function, hook.function, site)
    rejected: dict[tuple[OpenFile, int], str] = {}  # once, however many sources have the probe
    for resolved in places:
        for place in resolved.places if resolved.kind == "usdt" else ():
            if place.rejected_offset:
                rejected.setdefault((place.opened, place.rejected_offset), place.name)
    by_number = dict(enumerate(rejected.values(), len(names)))
    counting: dict[OpenFile, list[Site]] = {}
    for number, (opened, offset) in zip(by_number, rejected, strict=True):
        counting.setdefault(opened, []).append(Site(offset, 0, usdt_cookie(number, 0)))
    for opened, those in counting.items():
        # First of all, for a program may fire as soon as it sees that a probe is traced.
        sites[opened].plain = {REJECTED: those, **sites[opened].plain}
    return Plan(
        sites, [entry for entries in lists for entry in entries], [name for _, name in names], numbers, by_number
    )


def totals(
    hooks: Sequence[programs.Hook], stats: Iterable[tuple[bytes, bytes]], calls: Mapping[int, int]
) -> dict[str, int]:
    """What the hooks have counted, by COUNTERS, of the entries of the map `stats`; and how many calls are `open`.

    `calls` has the number of open ones by the hook of their entries. What was entered, has not returned and is not open
    was left, which no hook has seen.
    """
    total = dict.fromkeys(programs.COUNTERS, 0)
    hits = [0] * len(hooks)
    for key, values in stats:
        numbers = memoryview(values).cast("Q")  # of each CPU in turn
        room = programs.COUNTERS_SIZE // numbers.itemsize
        index = int.from_bytes(key, "little")
        hits[index] = sum(numbers[programs.COUNTERS.index("hits") :: room])
        for counter, name in enumerate(programs.COUNTERS):
            # A pair's hits are its ends.
            if name != "hits" or hooks[index].start is None:
                total[name] += sum(numbers[counter::room])
    for hook in hooks:
        if hook.counts_calls and hook.call is not None:
            entered = hook.call.index
            total["dropped"] += max(0, hits[entered] - hits[hook.index] - calls.get(entered, 0))
    return {**total, "open": sum(calls.values())}
