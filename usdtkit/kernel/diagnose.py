"""A program that the compiler or the kernel refuses → an error that names the action of a user which is the reason.

Input: the hooks, and the `ProgramError`, which names a function of the program or a place in a user's raw C. Output: an
error in the user's words. The action is found by compiling and loading each one alone. `trace.session` imports this
module only after a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from usdtkit.bpf import actions
from usdtkit.bpf.actions import Block
from usdtkit.bpf.compiler import compile_program
from usdtkit.bpf.program import Hook, build
from usdtkit.errors import ProgramError, UsageError, UsdtkitError
from usdtkit.kernel.load import Loaded

TOO_LARGE = "too large"  # the kernel's words


def diagnose(hooks: Sequence[Hook], error: ProgramError) -> UsdtkitError:
    """The same error with the name of what the user asked for, or `error` itself where that cannot be found."""
    for hook in hooks:
        if hook.function == error.function:
            try:
                culprit = _culprit(hooks, hook)
            except UsdtkitError:
                return error  # nothing could be tried, and no innocent action must be named
            return UsdtkitError(f"{culprit}: {error.message}", hint=_hint(error))
        for block in hook.blocks:
            action = block.action
            if isinstance(action, actions.Raw) and error.function in (action.body_name, action.declarations_name):
                return _in_raw(hook, action, error)
    return error


def _hint(error: ProgramError) -> str | None:
    if TOO_LARGE in error.message:
        return "read less of the strings that contains, endswith and matches look through, or use fewer of them"
    return error.hint


def _in_raw(hook: Hook, action: actions.Raw, error: ProgramError) -> UsageError:
    is_body = error.function == action.body_name
    lines = (action.text if is_body else action.declarations).splitlines()
    line = lines[error.line - 1].strip() if 0 < error.line <= len(lines) else "the end"
    what = "raw C" if is_body else "declarations of the raw C"
    return UsageError(f"{what} of {hook.what}, line {error.line}: {error.message}, in: {line}")


def _culprit(hooks: Sequence[Hook], hook: Hook) -> str:
    for block in hook.blocks:
        name = actions.describe(block.action)
        if _refused(hooks, hook, Block(None, block.action)):
            return f"{name} of {hook.what}"
        if block.condition is not None and _refused(hooks, hook, block):
            return f"where(…) of {name} of {hook.what}"
    return f"what the pair keeps of {hook.what}" if hook.start is not None else f"the actions of {hook.what} together"


def _refused(hooks: Sequence[Hook], hook: Hook, block: Block) -> bool:
    program = build([replace(other, blocks=[block] if other is hook else []) for other in hooks])
    try:
        loaded = Loaded(compile_program(program.text), program.parameters)
    except ProgramError as error:
        if not error.function:
            raise  # the compiler itself failed, which says nothing about this action
        return True
    try:
        loaded.program(hook.function, cookie=0)
    except ProgramError:
        return True
    finally:
        loaded.close()
    return False
