"""A traced program does what it does untraced: however functions are left, and whenever a tracer comes and goes.

Programs in which functions are left in every way that there is (tests/programs/unharmed), traced at entries, returns,
both, and at instructions within functions; attached before, in the middle of a call, and until then; in each of the
ways to attach. All that they write and how they end is what it is without a tracer, and what they count of their own
calls is what the tracer counts.
"""

import contextlib
from dataclasses import replace

import pytest
from unharmed import CASES, FEW, MOMENTS, instructions

from usdtkit import records, trace
from usdtkit.kernel.attach.links import METHODS
from usdtkit.model import RETURN_POLICIES

LIBRARIES = {"throws.cc": ["c", "stdc++"], "goroutines.go": []}
KINDS = ("entry", "return", "pair", "instruction")


class Tracer:
    """Hooks of one kind in a session that runs, with counts by process and function."""

    def __init__(self, program, kind, pids, functions=None, **options):
        self.session = trace.Session(pid=pids, **options)
        self.counts = []
        self.starts = []
        for library, names in (functions or program.functions).items():
            if kind == "instruction":
                source = self.session.source(within(self.session, program, library, names))
            elif kind == "entry":
                source = self.session.uprobe(library, *names)
            elif kind == "return":
                source = self.session.uretprobe(library, *names)
            else:
                source = self.session.pair(trace.uprobe(library, *names))
                self.starts.append(source.start.count("pid", "probe"))
            self.counts.append(source.count("pid", "probe"))

    @classmethod
    @contextlib.contextmanager
    def attached(cls, program, kind, pids, **options):
        """As a context, attached."""
        tracer = cls(program, kind, pids, **options)
        with tracer.session:
            tracer.session.start()
            yield tracer

    def look(self, pids):
        """Calls that were counted and entries of pairs, both by (case, function), how returns are seen, the summary."""
        case_of = {pid: case for case, pid in pids.items()}
        found = [
            {(case_of[pid], name): count for counts in each for (pid, name), count in counts.read().items()}
            for each in (self.counts, self.starts)
        ]
        ways = {site.returns for site in self.session.plan() if site.kind == "return"}
        return *found, ways, self.session.summary()


def within(session, program, library, names):
    """Instructions within functions, as places of a session."""
    found = session.resolve(trace.uprobe(library, *names))
    places = [
        records.replace(place, file_offset=place.file_offset + offset)
        for place in found.places
        for offset in instructions(place.path, place.function.address, place.function.size, program.instructions)
    ]
    return records.replace(found, places=tuple(places), arguments=())


def told(outcomes, which, *, libraries):
    """{(case, function): what the processes themselves counted}, with or without functions of `libraries`.

    `which`: 0 of entries, 1 of returns.
    """
    return {
        (case, name.rpartition(":")[2]): count[which]
        for case, outcome in outcomes.items()
        for name, count in outcome.calls.items()
        if count[which] and (libraries or ":" not in name)
    }


def check(program, kind, moment, **options):
    """Trace the program so; nothing differs, and the counts are its own."""
    outcomes, (counted, starts, ways, summary) = program.traced(
        moment,
        lambda pids: Tracer.attached(program, kind, pids, **options),
        Tracer.look,
    )
    wrong = program.differences(outcomes)
    lost = lost_of(summary)
    if kind != "instruction":
        # Of a thread's calls the kernel's return probes see 64 at a time; all others are in the account.
        allowed = lost if "probes" in ways else 0
        wrong += wrong_counts(
            program,
            kind,
            moment,
            counted,
            starts,
            allowed,
            libraries="functions" not in options,
        )
    if kind == "pair" and moment == "before" and sum(starts.values()) != sum(counted.values()) + lost:
        wrong.append(f"of {sum(starts.values())} entries {sum(counted.values())} returned, and {summary}")
    assert not wrong, "\n".join([f"{kind}, {moment}, {options}:", *wrong])


def lost_of(summary):
    """The calls whose return was not counted."""
    return summary.abandoned + summary.overflow + summary.full + summary.open


def wrong_counts(program, kind, moment, counted, starts, lost, *, libraries):
    """A line for each function whose calls were not counted rightly; those of an open end are at most what they are.

    No more returns may be missing than are known to be `lost`.
    """
    wrong = []
    entered, returned = (told(program.untraced, which, libraries=libraries) for which in (0, 1))
    expected = [(counted, entered if kind == "entry" else returned)]
    if kind == "pair":  # what never returns is left out
        expected.append((starts, {call: count for call, count in entered.items() if call in returned}))
    for found, right in expected:
        for (case, name), count in right.items():
            seen = found.get((case, name), 0)
            missing = count - seen
            if found is counted and 0 < missing <= lost:
                lost -= missing
            elif missing < 0 or (moment == "before" and missing):
                wrong.append(f"{program.name}/{case}: {seen} of {count} calls of {name} were counted")
    return wrong


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_it_does_what_it_does_untraced(unharmed, name, kind, moment):
    check(unharmed(name), kind, moment)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", ["return", "pair"])
@pytest.mark.parametrize(("name", "returns"), [*((name, "sites") for name in CASES), ("calls.c", "probes")])
def test_with_returns_as_they_were_asked_for(unharmed, name, returns, kind, moment):
    """By sites in every program; by the kernel's return probes in those in which functions only return.

    There only in the program itself: in a library they would reach what other tests trace at the same time.
    """
    program = unharmed(name)
    only = {"functions": {program.image: program.functions[program.image]}} if returns == "probes" else {}
    check(program, kind, moment, returns=returns, **only)


@pytest.mark.parametrize("kind", ["entry", "return", "pair"])
@pytest.mark.parametrize("method", METHODS)
def test_returns_that_are_seen_in_one_process_do_no_harm_in_another(unharmed, kind, method):
    """The kernel takes return addresses in every process that has a breakpoint there, where one link asks for it."""
    plain, throws = unharmed("calls.c"), replace(unharmed("throws.cc"), cases=("sort", "through_c"))
    functions = {"c": ["qsort", "qsort_r", "tsearch", "tfind", "lfind"]}
    with plain.running() as runs, Tracer.attached(plain, kind, [runs["sort"].pid], functions=functions, method=method):
        outcomes, _ = throws.traced(
            "before", lambda pids: Tracer.attached(throws, "entry", pids, functions=functions), Tracer.look
        )
    assert not throws.differences(outcomes)


@pytest.mark.parametrize("returns", RETURN_POLICIES)
@pytest.mark.parametrize("kind", ["return", "pair"])
def test_the_account_of_a_deep_recursion(unharmed, kind, returns):
    """The kernel keeps 64 pending return probes of a thread; the calls beyond are not forgotten."""
    program = replace(unharmed("calls.c"), cases=("deep",))
    outcomes, (counted, _, _, summary) = program.traced(
        "before", lambda pids: Tracer.attached(program, kind, pids, returns=returns), Tracer.look
    )
    assert not program.differences(outcomes)
    received = counted["deep", "deep"]
    assert received == (5001 if returns == "sites" else 64)
    assert received + lost_of(summary) == 5001


@pytest.mark.parametrize(("kind", "method"), [("return", "perf_link"), ("pair", "perf_link"), ("pair", "perf_ioctl")])
@pytest.mark.parametrize("name", FEW)
def test_in_another_way_to_attach(unharmed, name, kind, method):
    """Which takes descriptors for each site, and time for each of these."""
    check(replace(unharmed(name), cases=FEW[name]), kind, "before", method=method)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", FEW)
def test_with_all_its_functions(unharmed, name, moment):
    """Those of the program, and of the libraries of C and C++."""
    program = replace(unharmed(name), cases=FEW[name])
    libraries = [program.image, *LIBRARIES.get(name, ["c"])]
    everything = {library: ["*"] for library in libraries}
    outcomes, _ = program.traced(
        moment, lambda pids: Tracer.attached(program, "pair", pids, functions=everything), Tracer.look
    )
    assert not program.differences(outcomes)
