"""Python functions in place of the interpreter's native frames, for stacks as they come and for those that are cut."""

from usdtkit.trace.memory import Frame
from usdtkit.trace.merging import PythonFrame, is_evaluation, merge

EVALUATION = "_PyEval_EvalFrameDefault"


def merged(native, python):
    """The names of both stacks as one. A Python name that ends in "|" is an entry."""
    functions = [PythonFrame(Frame("python", name.rstrip("|")), name.endswith("|")) for name in python]
    return [frame.name for frame in merge([Frame("native", name) for name in native], functions)]


def test_functions_stand_where_the_interpreter_ran_them():
    native = ["malloc", EVALUATION, "list_sort", EVALUATION, "Py_BytesMain", "_start"]
    assert merged(native, ["key|", "pay", "order", "<module>|"]) == [
        *("malloc", "key", "list_sort", "pay", "order", "<module>", "Py_BytesMain", "_start")
    ]


def test_a_hit_within_the_interpreter_itself():
    assert merged([f"{EVALUATION}.cold", "_start"], ["pay", "<module>|"]) == ["pay", "<module>", "_start"]


def test_functions_whose_native_frames_are_missing_come_last():
    assert merged(["malloc", EVALUATION], ["key|", "pay", "<module>|"]) == ["malloc", "key", "pay", "<module>"]
    assert merged(["malloc"], ["pay", "<module>|"]) == ["malloc", "pay", "<module>"]


def test_the_interpreter_s_frame_stays_where_its_functions_are_missing():
    assert merged(["malloc", EVALUATION, EVALUATION, "_start"], ["key|"]) == ["malloc", "key", EVALUATION, "_start"]
    assert merged([EVALUATION, "_start"], []) == [EVALUATION, "_start"]


def test_only_frames_of_the_function_itself_are_the_interpreter_s():
    assert is_evaluation(Frame("native", EVALUATION))
    assert not is_evaluation(Frame("native", f"{EVALUATION}Slow"))
    assert not is_evaluation(Frame("jit", EVALUATION))
    assert not is_evaluation(Frame("python", EVALUATION))


def test_the_code_through_which_a_function_is_called_is_the_interpreter_s_too():
    pieces = [Frame("jit", f"py::{name}:/srv/shop.py") for name in ("pay", "order", "main")]
    call, evaluation = Frame("native", "_PyEval_Vector"), Frame("native", EVALUATION)
    native = [evaluation, pieces[0], call, evaluation, pieces[1], pieces[2], evaluation, pieces[2]]
    functions = [PythonFrame(Frame("python", name), is_entry=True) for name in ("pay", "order")]
    merged_frames = merge(native, functions)
    assert merged_frames == (functions[0].frame, call, functions[1].frame, pieces[2], evaluation, pieces[2])


def test_another_rule_for_what_is_the_interpreter():
    functions = [PythonFrame(Frame("python", "pay"), is_entry=True)]
    frames = merge([Frame("native", address=7)], functions, lambda frame: frame.address == 7)
    assert frames == (Frame("python", "pay"),)
