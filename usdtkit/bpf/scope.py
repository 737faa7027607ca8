"""What is known at one probe before anything is rendered there: its arguments, and how its functions are called.

Input: the declaration of a hook. Output: `Scope`, for `access`, `names` and `render`.
"""

from __future__ import annotations

from collections.abc import Mapping

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.abi import Abi, CallingConvention, abi_of
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.operands import MAX_OPERANDS
from usdtkit.errors import UsageError
from usdtkit.model import Argument, HookKind
from usdtkit.records import dataclass, field


@dataclass(frozen=True)
class Scope:
    """The probe's arguments and, at the end of a pair, what its start kept.

    `what` names the probe in errors. `goid_offset` is where the descriptor of a goroutine has its number, or 0 where
    that is not known. `derived` are values that expressions may ask for by name, besides arguments.
    """

    what: str
    kind: HookKind
    machine: str
    arguments: tuple[Argument, ...] = ()
    kept: Layout | None = None
    string_size: int = 256
    convention: str = ""
    goid_offset: int = 0
    derived: Mapping[str, ex.Expression] = field(default_factory=dict)

    @property
    def abi(self) -> Abi:
        """What the architecture of the traced program says."""
        return abi_of(self.machine)

    @property
    def calls(self) -> CallingConvention:
        """How the functions here are called. UsageError where they are called in different ways."""
        try:
            return self.abi.conventions[self.convention]
        except KeyError:
            raise UsageError(
                f"{self.what}: its functions are called in different ways, those of 32 bits, of Go and of C",
                hint="trace each file separately, by its path, and in a Go program without its assembler code (*.abi0)",
            ) from None

    def argument(self, which: int | str) -> Argument:
        """An argument by its name, or by its number from 1. UsageError where there is none."""
        if self.kind == "return":
            raise UsageError(
                f"{self.what}: a function's arguments cannot be read when it returns",
                hint="keep them from its entry: session.pair(uprobe(…), keep=[…])",
            )
        if self.kind == "clock":
            known = "ip, ustack, pycaller, pid, tid, uid, gid, cgroup, cpu, comm, time, probe"
            raise UsageError(f"{self.what}: a clock has no arguments, so no {which!r}", hint=f"it has {known}")
        if isinstance(which, str):
            for argument in self.arguments:
                if argument.name == which:
                    return argument
            known = ", ".join(argument.name for argument in self.arguments) or "none is known"
            raise UsageError(f"{self.what} has no argument {which!r}", hint=f"its arguments: {known}")
        if which <= len(self.arguments):
            return self.arguments[which - 1]
        if self.kind == "usdt" or which > MAX_OPERANDS:
            raise UsageError(f"{self.what} has {len(self.arguments)} arguments, not {which}")
        return Argument(f"arg{which}", "u64", which - 1)
