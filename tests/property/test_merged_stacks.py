"""Native frames and Python functions as one stack: nothing is lost, nothing comes twice, and the order stays."""

from hypothesis import given
from hypothesis import strategies as st

from usdtkit.trace.memory import Frame
from usdtkit.trace.merging import PythonFrame, is_evaluation, merge

NATIVE = st.builds(Frame, st.just("native"), st.sampled_from(["malloc", "call", "_PyEval_EvalFrameDefault"]))
FUNCTION = st.builds(PythonFrame, st.builds(Frame, st.just("python"), st.sampled_from(["order", "pay"])), st.booleans())


def numbered(frames):
    """The frames with their places as addresses, so that no two are equal."""
    return [frame._replace(address=n) for n, frame in enumerate(frames, 1)]


@given(st.lists(NATIVE), st.lists(FUNCTION))
def test_merging(native, functions):
    native = numbered(native)
    frames = numbered(function.frame for function in functions)
    python = [function._replace(frame=frame) for function, frame in zip(functions, frames, strict=True)]
    merged = merge(native, python)
    assert [frame for frame in merged if frame.kind == "python"] == frames
    others = [frame for frame in native if not is_evaluation(frame)]
    assert [frame for frame in merged if frame.kind == "native" and not is_evaluation(frame)] == others
    # A frame of the interpreter stays only where no function is left for it.
    replaced = sum(map(is_evaluation, native)) - sum(map(is_evaluation, merged))
    groups = sum(function.is_entry for function in functions) + bool(functions and not functions[-1].is_entry)
    assert replaced == min(groups, sum(map(is_evaluation, native)))
