"""How one hook's program reads what the machine has at a hit: registers, operands, return addresses, stacks.

Input: a `Scope`. Output: C for `names`, `calls` and `render`, and, in `uses` and `registers`, what `program` must
declare at the beginning of the hook for that C. Constants become numbered parameters, so that equal questions give
equal text whatever their constants are.
"""

from __future__ import annotations

from usdtkit.bpf.cookie import AT_ENTRY_BIT, EXIT_BIT, EXIT_LACKS_VALUE
from usdtkit.bpf.scope import Scope
from usdtkit.bpf.values import IntegerValue
from usdtkit.errors import UsageError
from usdtkit.model import HookKind
from usdtkit.records import dataclass, field

# Where the program is within its function, in the words of stacks.c.
_STACK_PLACE: dict[HookKind, str] = {
    "usdt": f"cookie & {AT_ENTRY_BIT} ? AT_ENTRY : 0",
    "entry": "AT_ENTRY",
    "return": f"cookie & {EXIT_BIT}u ? AT_EXIT : AT_RETURN",
    "clock": "AT_TICK",
}


@dataclass
class Access:
    """Of one hook. `unreadable` and `no_stack` are the C of its counters of values, and of stacks, that it cannot read.

    `parameters` are the constants of the whole program. `uses` fills with names of `program.OPENING`, `registers` with
    the registers that are read and the variables that hold them, `operands` with those of a probe, `threads` with the
    numbers of the threads' values that are looked up, and `reads` with those that an expression reads.
    """

    scope: Scope
    unreadable: str
    no_stack: str
    parameters: list[int]
    uses: set[str] = field(default_factory=set)
    registers: dict[str, str] = field(default_factory=dict)
    operands: dict[int, str] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    reads: set[int] = field(default_factory=set)

    @property
    def stack(self) -> str:
        """The C of the number of the current stack."""
        return f"user_stack(ctx, {_STACK_PLACE[self.scope.kind]}, {self.no_stack})"

    def parameter(self, value: int) -> str:
        """A constant, as a place that the loader fills."""
        self.parameters.append(value)
        return f"PARAMETER({len(self.parameters) - 1})"

    def register(self, name: str) -> str:
        """A register of the process, as struct pt_regs calls it: a variable that the hook declares at its beginning.

        If it were read at each use, the compiler would let several reads share an address within `ctx`, which the
        verifier rejects.
        """
        self.registers.setdefault(name, f"register_{len(self.registers)}")
        return self.registers[name]

    def named_register(self, name: str) -> str:
        """A register that the user named. UsageError where the machine has none of that name."""
        known = self.scope.abi.named_registers
        if name not in known:
            raise UsageError(f"{self.scope.what}: there is no register {name!r}", hint=f"one of {', '.join(known)}")
        return self.register(name)

    def operand(self, index: int) -> IntegerValue:
        """An operand of a probe, or an argument of a function, by its number from 0."""
        if self.scope.kind == "usdt":
            self.uses.add("layout")
            self.operands[index] = f"usdt_operand(ctx, layout + {index}, {self.unreadable})"
            return IntegerValue(self.operands[index])
        calls = self.scope.calls
        if index < len(calls.registers):
            return IntegerValue(self.register(calls.registers[index]))
        above = calls.displacement + calls.word * (index - len(calls.registers))
        return IntegerValue(f"read_user({self.register('sp')} + {above}, {calls.word}, {self.unreadable})")

    def instruction(self) -> str:
        """The C of the address of the instruction."""
        return self.register(self.scope.abi.instruction)

    def return_value(self) -> IntegerValue:
        """What a function returns; some of its exits come too early to know."""
        self.uses.add("cookie")
        value = self.register(self.scope.abi.return_value)
        return IntegerValue(f"(s64)(cookie & {EXIT_LACKS_VALUE} ? missing({self.unreadable}) : {value})", "i64")

    def return_address(self) -> str:
        """The C of where a function will return to, at its first instruction and at its exits."""
        if link_register := self.scope.abi.link_register:
            return self.register(link_register)
        return f"read_user({self.register('sp')}, {self.scope.calls.word}, {self.unreadable})"

    def returned_to(self) -> str:
        """The C of where a function returns to: a return probe is hit there, an exit at the instruction before."""
        self.uses.add("cookie")
        return f"(cookie & {EXIT_BIT}u ? {self.return_address()} : {self.instruction()})"

    def goid(self) -> IntegerValue:
        """The number of the goroutine that runs. UsageError where there is none, or where it is not known."""
        if self.scope.convention in ("go-stack", "go-i386"):
            raise UsageError(
                f"{self.scope.what}: the goroutine is not in a register there",
                hint="name functions that are not assembler code, of Go 1.17 or later (arm64: 1.18), or use tid",
            )
        if self.scope.convention != "go":
            raise UsageError(f"{self.scope.what}: only functions of Go programs are run by goroutines", hint="use tid")
        if not self.scope.goid_offset:
            raise UsageError(
                f"{self.scope.what}: the place of a goroutine's number is not known in this version of Go",
                hint="it is known for Go 1.17 to 1.27, and of programs with DWARF; tid is the number of the thread",
            )
        self.uses.add("goid")
        routine = self.register(self.scope.calls.routine)
        return IntegerValue(f"read_user({routine} + {self.parameter(self.scope.goid_offset)}, 8, {self.unreadable})")
