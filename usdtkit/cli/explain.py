"""`--explain`: a row for each site that a session would attach to, with what it would cost.

Input: a session that is set up, and a sink. Output: the rows of its plan. `warn_of_cost` and `strangers` also serve a
trace that starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from usdtkit import processes
from usdtkit.cli.messages import note
from usdtkit.elf import golang
from usdtkit.elf.instructions import EMULATED_COST, STEPPED_COST
from usdtkit.output.sink import Sink
from usdtkit.output.text import printable
from usdtkit.privatedirs import stranger, user_name
from usdtkit.results.columns import Column, Schema
from usdtkit.trace import Planned, Session

MAX_NAMES = 5  # in a warning
MANY_SITES = 1000  # such as all functions of libc, at which a machine comes to a standstill


def _arguments(arguments: Sequence[Mapping[str, str]]) -> str:
    return printable(", ".join(f"{argument['name']} {argument['type']}" for argument in arguments))


def _hex(offset: int) -> str:
    return hex(offset) if offset else "-"


OWNER = Column(
    *("owner", "OWNER", "integer", 16, "the user who owns the file, if that is neither root nor you"),
    show=lambda owner: "-" if owner is None else user_name(owner),
    left=True,
    nullable=True,
    optional=True,
)
COLUMNS = (
    Column("kind", "KIND", width=6, meaning="what is attached to", values=("usdt", "entry", "return", "clock")),
    Column("file_offset", "OFFSET", "count", 12, "where in the file; 0 for a clock", show=_hex, left=True),
    Column("semaphore_offset", "SEMAPHORE", "count", 12, "0 if there is none", show=_hex, left=True),
    Column(
        "cost",
        "COST",
        width=8,
        meaning=f"what a hit makes the kernel do: emulated costs {EMULATED_COST}, stepped {STEPPED_COST}, "
        "interrupt 1 to 2 µs",
        values=("emulated", "stepped", "refused", "mistaken", "held", "unknown", "interrupt"),
    ),
    Column("name", "NAME", width=28, meaning="the probe, function or clock"),
    Column(
        *("path", "FILE", "string", 40, "the file; empty for a clock, which is in none"),
        show=lambda path: printable(path) or "-",
    ),
    Column(
        *("returns", "RETURNS", "string", 7, "how the function's returns are seen"),
        show=lambda way: way or "-",
        values=("", "sites", "probes", "tail"),
    ),
    OWNER,
    Column(
        *("arguments", "ARGUMENTS", "list", 0, "the arguments and their types"),
        show=_arguments,
        fields=(Column("name"), Column("type")),
    ),
    Column("pids", type="list", meaning="the processes; an empty list stands for all"),
    Column("why", meaning="why its returns are seen in this way"),
)
SCHEMAS = (Schema("explain", COLUMNS),)


def explain(session: Session, sink: Sink, named_pids: Iterable[int]) -> None:
    """Write the plan of a session, one row for each site. Then say what it would cost, and who owns the files."""
    plan = session.plan()
    owners = strangers(plan, named_pids)
    sink.begin(Schema("explain", COLUMNS if owners else [column for column in COLUMNS if column is not OWNER]))
    for remark in session.remarks:
        note(f"usdtkit: {remark}")
    for path in dict.fromkeys(site.path for site in plan if site.path):
        if build := golang.build_of(path):
            note(f"usdtkit: {path} was built by {build}")
    for site in plan:
        sink.row(site.to_json() | ({"owner": owners.get(site.path)} if owners else {}))
    for (returns, why), number in Counter((site.returns, site.why) for site in plan if site.kind == "return").items():
        way = (
            "probes on the instructions that leave the functions"
            if returns == "sites"
            else "the kernel's return probes"
        )
        note(f"usdtkit: {number} return {'site' if number == 1 else 'sites'}, by {way}: {why}")
    warn_of_cost(plan)
    warn_of_owners(owners)
    from usdtkit.bpf import translator  # a trace that starts has no use for it: its program is in the cache

    if reason := translator.obstacle(session.program().text):
        note(f"usdtkit: bcc will compile the program, because of {reason}")


def warn_of_cost(plan: Sequence[Planned], *, stepped: bool = True) -> None:
    """Say that many sites slow down the machine; with `stepped` also which sites are single-stepped, for a user who
    chose them and can choose others."""
    sites = {(site.path, site.file_offset) for site in plan}
    # Nearly every function leaves by an instruction that is single-stepped, so returns are not worth a warning.
    entries = {(site.path, site.file_offset): site for site in plan if site.kind != "return" and site.cost == "stepped"}
    slow = sorted({site.name for site in entries.values()})
    if slow and stepped:
        cost = f"are single-stepped: a hit costs {STEPPED_COST} as one that is emulated ({EMULATED_COST})"
        note(f"usdtkit: {len(entries)} of {len(sites)} sites {cost}: {listed(slow)}")
    if len(sites) > MANY_SITES and not plan[0].pids:
        cost = "sites are probed in every process, which slows all of them down; -p PID traces only one"
        note(f"usdtkit: {len(sites):,} {cost}")


def listed(names: Iterable[str], most: int | None = MAX_NAMES) -> str:
    """The names in alphabetical order, each once, and how many more there are than `most` (None: all)."""
    each = sorted(set(names))
    left_out = len(each[most:]) if most is not None else 0
    return ", ".join(each[:most]) + (f" and {left_out:,} more" if left_out else "")


def strangers(plan: Sequence[Planned], named_pids: Iterable[int]) -> dict[str, int]:
    """The files of a plan that belong neither to root, nor to us, nor to the user of a process that the user named.

    A process that was found by the name of its program was not named: anybody can give a program that name.
    """
    users = {processes.user_of(pid) for pid in named_pids}
    owners = {path: stranger(path) for path in dict.fromkeys(site.path for site in plan if site.path)}
    return {path: owner for path, owner in owners.items() if owner is not None and owner not in users}


def warn_of_owners(owners: Mapping[str, int]) -> None:
    """Say whose the files are that `strangers` found."""
    for path, owner in owners.items():
        note(f"usdtkit: {path} belongs to {user_name(owner)}, who can make its probes report anything")
