"""What the events of runtimes add up to: the flow of calls, and collections."""

from collections import namedtuple

import pytest

from usdtkit.errors import NotFoundError, UsageError
from usdtkit.providers import runtimes
from usdtkit.providers.runtimes import CallFlow, GarbageCollections
from usdtkit.providers.runtimes.language import CollectionProbes
from usdtkit.providers.runtimes.languages import language_of_files
from usdtkit.trace import Session

Call = namedtuple("Call", "time_ns pid tid probe cpu name")


def flow_of(*events):
    """The steps of entries ("+name") and returns ("-name") of one thread, 10 ns apart, and those of the end."""
    flow = CallFlow({"entry"}, lambda event: event.name)
    steps = [
        flow.take(Call(10 * n, 1, 2, "entry" if event[0] == "+" else "done", 0, event[1:]))
        for n, event in enumerate(events, 1)
    ]
    return steps, list(flow.finish())


def test_own_time_is_without_that_of_calls_within():
    steps, left = flow_of("+a", "+b", "-b", "+b", "-b", "-a")
    assert left == []
    ends = [(step.stack, step.own_ns) for taken in steps for step in taken if not step.is_entry]
    assert ends == [(("a", "b"), 10), (("a", "b"), 10), (("a",), 30)]
    assert [taken[-1].depth for taken in steps] == [0, 1, 1, 1, 1, 0]


def test_a_call_without_a_return_ends_with_the_one_around_it():
    steps, _ = flow_of("+a", "+b", "+c", "-a")
    assert [(step.name, step.reported, step.own_ns) for step in steps[-1]] == [
        ("c", False, 10),
        ("b", False, 10),
        ("a", True, 10),
    ]


def test_a_return_from_before_the_trace_ends_nothing():
    steps, left = flow_of("+a", "-b")
    assert [(step.name, step.depth, step.stack, step.own_ns) for step in steps[1]] == [("b", 1, None, None)]
    assert [(step.name, step.time_ns, step.reported) for step in left] == [("a", 20, False)]


POOL = CollectionProbes("pool:begin", "pool:end", "pool", ("pool",))
Pool = namedtuple("Pool", "time_ns pid tid probe pool used")


def test_collections_of_several_pools_at_once():
    collections = GarbageCollections([POOL])
    assert collections.take(Pool(1, 1, 2, "pool:end", "eden", 5)) is None
    assert collections.take(Pool(10, 1, 2, "pool:begin", "eden", 97)) is None
    assert collections.take(Pool(20, 1, 2, "pool:begin", "old", 31)) is None
    eden = collections.take(Pool(30, 1, 2, "pool:end", "eden", 0))
    assert (eden.time_ns, eden.latency_ns, eden.description) == (10, 20, "pool eden used=97->0")
    assert collections.take(Pool(50, 1, 2, "pool:end", "old", None)).description == "pool old used=31->?"


def test_short_collections_are_left_out():
    collections = GarbageCollections([POOL], min_ns=15)
    collections.take(Pool(10, 1, 2, "pool:begin", "eden", 97))
    assert collections.take(Pool(24, 1, 2, "pool:end", "eden", 97)) is None


@pytest.mark.parametrize(
    ("files", "language"),
    [
        (["libc.so.6", "python3.12"], "python"),
        (["shop", "libpython3.11.so.1.0"], "python"),
        (["node", "libpython3.11.so.1.0"], "node"),
        (["shop", "libjvm.so"], "java"),
        (["php-fpm8.2"], "php"),
        (["shop"], "c"),
    ],
)
def test_languages_by_files(files, language):
    assert language_of_files(files).name == language


def test_sources_without_the_software():
    with Session(offline=True) as session:
        runtimes.of(session, "ruby").calls(method="charge").hist("latency", "name")
        assert len(session.program().text) > 500
        assert any("TracePoint" in remark for remark in session.remarks)


def test_what_cannot_be_found_out():
    with Session(offline=True) as session:
        with pytest.raises(UsageError, match="there is nothing to trace"):
            runtimes.of(session)
        with pytest.raises(UsageError, match="cobol"):
            runtimes.of(session, "cobol")
        with pytest.raises(NotFoundError, match="no probes for calls"):
            runtimes.of(session, "node").calls()
