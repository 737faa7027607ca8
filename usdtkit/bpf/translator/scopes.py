"""The variables of a program, by name and block: in registers, in the stack, or equal to something that never changes.

Input: declarations, as `lowering` comes to them. Output: the base of `expressions`: where a variable is, and room in
the stack, which blocks that do not overlap share.
"""

from __future__ import annotations

from usdtkit.bpf.translator.arithmetic import Assembly
from usdtkit.bpf.translator.code import FRAME, Address, Operand, Register
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.types import Type
from usdtkit.records import NamedTuple

STACK_SIZE = 512


class Variable(NamedTuple):
    """Where a variable is: at an address, in a register of its own, or what it always equals."""

    type: Type
    operand: Operand
    is_own: bool = False


class Scopes:
    """The blocks that are open, and the instructions so far."""

    def __init__(self) -> None:
        self.assembly = Assembly()
        self.stack = 0
        """Bytes of the stack that variables take."""
        self._scopes: list[dict[str, Variable]] = []
        self._depth = 0

    def _open(self) -> int:
        self._scopes.append({})
        return self._depth

    def _close(self, depth: int) -> None:
        self._scopes.pop()
        self._depth = depth

    def _find(self, name: str) -> Variable | None:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
            if "" in scope:  # the outermost one of a function
                break
        return None

    def _allocate(self, size: int) -> Address:
        self._depth += (size + 7) // 8 * 8
        self.stack = max(self.stack, self._depth)
        if self._depth > STACK_SIZE:
            raise UntranslatableError("variables that take more than the stack of 512 bytes")
        return Address(FRAME, -self._depth)

    def _is_changing(self, operand: Operand) -> bool:
        register = operand.base if isinstance(operand, Address) else operand
        return isinstance(register, Register) and any(
            variable.is_own and variable.operand is register for scope in self._scopes for variable in scope.values()
        )
