"""Whatever bytes a process has where its report should be, what is read of it is bounded and plain."""

from hypothesis import given
from hypothesis import strategies as st

from usdtkit import reports

numbers = st.integers(0, 2**64 - 1)
entry = st.builds(
    lambda size, kind, values, text: reports.ENTRY.pack(size, kind, *values) + text,
    st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([48, 56, 72, 104])),
    st.integers(0, 3),
    st.tuples(*[numbers] * 5),
    st.binary(max_size=56),
)
areas = st.builds(
    lambda version, entries: reports.AREA.pack(reports.MAGIC, version, 0, 0) + b"".join(entries),
    st.sampled_from([reports.VERSION, 0]),
    st.lists(entry, max_size=20),
)


@given(st.one_of(st.binary(max_size=4096), areas))
def test_any_bytes(area):
    entries = list(reports._entries(area))
    assert sum(reports.ENTRY.size for _ in entries) <= len(area)
    assert all(len(numbers) == 5 and texts for _, *numbers, texts in entries)
    for engagement in reports._engagements(entries):
        assert all(engagement.wrapped)
