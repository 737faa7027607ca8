"""The native frames of a stack and the Python functions of the same thread → one stack.

Input: both stacks, innermost frame first. Output: frames, in which Python functions stand for the frames of the
interpreter that ran them. The interpreter's function of this name runs one or more Python functions in one native
frame: it calls itself only where C code comes between two of them. Used by `trace.stacks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from usdtkit.trace.memory import JIT, NATIVE, Frame

_EVALUATION = "_PyEval_EvalFrameDefault"
_TRAMPOLINE = "py::"  # what its name begins with in a perf map


class PythonFrame(NamedTuple):
    """A Python function of a stack. `is_entry`: it is the outermost of those that its native frame runs."""

    frame: Frame
    is_entry: bool


def is_evaluation(frame: Frame) -> bool:
    """Whether a native frame is one of the interpreter's function, or of a part that the compiler has moved away."""
    return frame.kind == NATIVE and frame.name.partition(".")[0] == _EVALUATION


def is_trampoline(frame: Frame) -> bool:
    """Whether a frame is of a piece of code that `python -X perf` has made for one Python function."""
    return frame.kind == JIT and frame.name.startswith(_TRAMPOLINE)


def merge(
    native: Sequence[Frame], python: Sequence[PythonFrame], is_eval: Callable[[Frame], bool] = is_evaluation
) -> tuple[Frame, ...]:
    """One stack of both.

    Each native frame of the interpreter is replaced by the Python functions up to the next entry, and with it the piece
    of code of such a function through which `python -X perf` calls the interpreter. It stays where there is no function
    any more, because the walk along Python's frames was cut, or has not begun. Functions whose native frame is missing,
    because that walk was cut, come last.
    """
    merged: list[Frame] = []
    rest = iter(python)
    functions: list[Frame] = []
    for frame in native:
        if functions and is_trampoline(frame):
            functions = []
            continue
        functions = _up_to_entry(rest) if is_eval(frame) else []
        merged += functions or [frame]
    return (*merged, *(left.frame for left in rest))


def _up_to_entry(rest: Iterator[PythonFrame]) -> list[Frame]:
    functions = []
    for function in rest:
        functions.append(function.frame)
        if function.is_entry:
            break
    return functions
