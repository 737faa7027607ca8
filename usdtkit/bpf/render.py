"""One expression at one probe → C text, and the values of its constants.

Input: `expressions`, and a `Scope` that says what names mean there. Output: C for `program`. Constants and literals
become numbered parameters, so the text of a user never reaches the compiler and equal questions compile once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.texts import TextPlace, pack_glob, render_glob, render_test
from usdtkit.errors import UsageError
from usdtkit.model import Argument, HookKind
from usdtkit.records import dataclass, field, replace

MAX_OPERANDS = 12
COMM_SIZE = 16


@dataclass(frozen=True)
class Calls:
    """How functions get integers: in these registers; further ones lie on the stack, `word` bytes each, from
    `displacement` on. A call pushes its return address, and the return has popped it when the return probe is hit:
    `return_slot`. `routine` is Go's register with the goroutine that runs."""

    registers: tuple[str, ...]
    displacement: int
    word: int = 8
    return_slot: int = 0
    routine: str = ""


# By machine and convention. Go's since 1.17.
CALLS: dict[tuple[str, str], Calls] = {
    ("x86_64", ""): Calls(("di", "si", "dx", "cx", "r8", "r9"), 8, return_slot=8),
    ("x86_64", "i386"): Calls((), 4, word=4, return_slot=4),
    ("x86_64", "go"): Calls(("ax", "bx", "cx", "di", "si", "r8", "r9", "r10", "r11"), 8, 8, 8, "r14"),
    ("aarch64", ""): Calls(tuple(f"regs[{n}]" for n in range(8)), 0),
    ("aarch64", "go"): Calls(tuple(f"regs[{n}]" for n in range(16)), 8, routine="regs[28]"),
}
# The registers that programs may ask for by name.
PT_REGS: dict[str, tuple[str, ...]] = {
    "x86_64": (*("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"), *(f"r{n}" for n in range(8, 16))),
    "aarch64": ("sp", "pc"),
}
RETURN_REGISTER = {"x86_64": "ax", "aarch64": "regs[0]"}
INSTRUCTION = {"x86_64": "ip", "aarch64": "pc"}

COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")

# A cookie has 32 bits, so that a kernel whose links carry none can be given it as one instruction's constant. The
# highest says that the site is an exit of a function, below is the number of the probe. The lowest bits of a USDT site
# name its list of operands, those of a function's sites say what is special about them.
COOKIE_LIST_BITS, COOKIE_PROBE_BITS = 12, 19
EXIT_BIT = 1 << 31
# The bit of a cookie that says that a USDT site is its function's first instruction.
AT_ENTRY_BIT = 1 << 11
# Of an exit: it is a conditional jump, whose condition is in the lowest four bits as the processor numbers them; it is
# a jump to code that will set the return value. Of an exit, and of its function's entry: other functions run through
# the exit as well, so that only a call with the same return address has ended there.
EXIT_CONDITION, EXIT_IS_BRANCH, EXIT_LACKS_VALUE, EXIT_IS_SHARED = 15, 1 << 4, 1 << 5, 1 << 6
# Which of several functions of one name in a file this is, such as the versions of a function in a C library.
NAMESAKE_SHIFT, NAMESAKES = 7, 32
# The function whose cookie this is, for a call and its return to meet by.
FUNCTION_NUMBER = f"(cookie & {EXIT_BIT - (1 << NAMESAKE_SHIFT)})"
# The number of the probe whose cookie this is.
PROBE_NUMBER = f"(cookie >> {COOKIE_LIST_BITS} & {(1 << COOKIE_PROBE_BITS) - 1})"
# The entries of a session's maps belong to a process.
STORE_KEY = "struct store_key { u64 pid, key; };"
# What a stack must know of its place, as stacks.c calls it.
STACK_PLACE: dict[HookKind, str] = {
    "usdt": f"cookie & {AT_ENTRY_BIT} ? AT_ENTRY : 0",
    "entry": "AT_ENTRY",
    "return": f"cookie & {EXIT_BIT}u ? AT_EXIT : AT_RETURN",
}


@dataclass(frozen=True)
class Scope:
    """What is known where a program runs: the probe's arguments and, at the end of a pair, what its start kept.

    `goid_offset`: where the descriptor of a goroutine has its number, 0 where that is not known. `derived`: the values
    that expressions may ask for by name, besides arguments.
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
    def calls(self) -> Calls:
        """How the functions here are called."""
        try:
            return CALLS[self.machine, self.convention]
        except KeyError:
            raise UsageError(
                f"{self.what}: its functions are called in different ways, those of 32 bits, of Go and of C",
                hint="trace the files apart: a path for each",
            ) from None

    def argument(self, which: int | str) -> Argument:
        if self.kind == "return":
            raise UsageError(
                f"{self.what}: a function's arguments are gone when it returns",
                hint="keep them from its entry: session.pair(uprobe(…), keep=[…])",
            )
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


@dataclass
class Renderer:
    """Renders for one hook. `stat`, `no_stack`: its counters of values, and of stacks, that could not be read."""

    scope: Scope
    stat: str
    no_stack: str
    parameters: list[int]
    globs: list[bytes]
    uses: set[str] = field(default_factory=set)
    registers: dict[str, str] = field(default_factory=dict)

    @property
    def stack(self) -> str:
        """The C of the id of the current stack."""
        return f"user_stack(ctx, {STACK_PLACE[self.scope.kind]}, {self.no_stack})"

    def field(self, name: str, expression: ex.Expression) -> Field:
        """The field that holds the value of `expression`."""
        resolved = self._resolve(expression)
        if isinstance(resolved, (ex.Text, ex.Buffer)):
            is_text = isinstance(resolved, ex.Text) or resolved.text
            return Field(name, "str" if is_text else "bytes", resolved.size)
        if isinstance(resolved, _Kept):
            return replace(resolved.field, name=name)
        if isinstance(resolved, _Comm):
            return Field(name, "str", COMM_SIZE)
        if isinstance(resolved, _Float):
            return Field(name, "f64")
        if isinstance(resolved, _Stack):
            return Field(name, "stack")
        if isinstance(resolved, _C):
            return Field(name, resolved.kind, names=resolved.names)
        if self._is_condition(resolved):
            return Field(name, "bool")
        return Field(name, "i64" if self.integer(resolved)[1] else "u64")

    def store(self, expression: ex.Expression, into: str, room: int) -> list[str]:
        """Statements that write the value to the field `into` (`r->f0`), which `field` has described."""
        resolved = self._resolve(expression)
        if isinstance(resolved, ex.Text):
            most, pointer = min(room, resolved.size + 2), self.pointer(resolved.pointer)
            return [f"{into}_length = counted(read_string(&{into}, {most}, {pointer}), {self.stat});"]
        if isinstance(resolved, ex.Buffer):
            pointer, length = self.pointer(resolved.pointer), self.integer(resolved.length)[0]
            read = f"read_buffer(&{into}, {min(room, resolved.size + 1)}, {pointer}, {length})"
            return [f"{into}_length = counted({read}, {self.stat});"]
        if isinstance(resolved, _Kept) and resolved.field.is_text:
            source = f"s->f{resolved.index}"
            return [
                f"{into}_length = {source}_length;",
                f"bpf_probe_read_kernel(&{into}, {min(room, resolved.field.room)}, &{source});",
            ]
        if isinstance(resolved, _Comm):
            return [f"{into}_length = {COMM_SIZE};", f"bpf_get_current_comm(&{into}, {COMM_SIZE});"]
        if isinstance(resolved, (_Float, _Kept, _Stack)):
            return [f"{into} = {resolved.c};"]
        return [f"{into} = {self.integer(resolved)[0]};"]

    def length(self, expression: ex.Expression, scratch: str) -> str:
        """The C of how much room a text needs; `scratch` has room for all of it."""
        resolved = self._resolve(expression)
        match resolved:
            case ex.Text(pointer, size):
                return f"read_string({scratch}, {size + 2}, {self.pointer(pointer)})"
            case ex.Buffer(_, length, size):
                return f"at_most({self.integer(length)[0]}, {size + 1})"
            case _Kept(index, kept):
                return f"at_most(s->f{index}_length, {kept.room})"
            case _:
                return str(COMM_SIZE)

    def integer(self, expression: ex.Expression) -> tuple[str, bool]:
        """The C of an integer or condition, 64 bits wide, and whether it is signed."""
        resolved = self._resolve(expression)
        match resolved:
            case ex.Constant(value):
                return (f"(s64){self.parameter(value)}", True) if value < 0 else (self.parameter(value), False)
            case ex.Cast(inner, type):
                return _cast(self.pointer(inner), type)
            case ex.Register(name):
                return self._named_register(name), False
            case ex.Binary():
                return self._binary(resolved)
            case ex.Not(inner):
                c, signed = self.integer(inner)
                return (f"(u64)!({c})", False) if self._is_condition(inner) else (f"(~({c}))", signed)
            case ex.Memory(_, _, type):
                return _cast(self._memory(resolved), type)
            case ex.TextTest(text, literal):
                return render_test(resolved, self._place(text, len(literal)), self.parameter, self.stat), False
            case ex.Glob(text):
                self.globs.append(pack_glob(resolved))
                return render_glob(len(self.globs) - 1, self._place(text), self.stat), False
            case _Kept() if not resolved.field.is_text and resolved.field.kind not in ("f64", "stack"):
                return resolved.c, resolved.field.kind == "i64"
            case _C(c, kind):
                return c, kind == "i64"
            case _:
                raise UsageError(f"{self.scope.what}: a string, a float or a stack where an integer is needed")

    def variable(self, expression: ex.Expression) -> tuple[str, str]:
        """The C type and the C of a value: an integer, of a text its address, of a float the bits of the double."""
        resolved = self._resolve(expression)
        if isinstance(resolved, (ex.Text, ex.Buffer)):
            return "u64", self.pointer(resolved)
        if isinstance(resolved, _Float):
            return "u64", resolved.c
        c, signed = self.integer(resolved)
        return "s64" if signed else "u64", c

    def pointer(self, expression: ex.Expression) -> str:
        """The C of an address: for an argument that is known to be a string or bytes, where they lie."""
        resolved = self._resolve(expression)
        return (
            self.pointer(resolved.pointer) if isinstance(resolved, (ex.Text, ex.Buffer)) else self.integer(resolved)[0]
        )

    def _memory(self, memory: ex.Memory) -> str:
        at = self.pointer(memory.address)
        if memory.offset:
            at = f"({at}) + {self.parameter(memory.offset)}"
        return f"read_user({at}, {int(memory.type[1:]) // 8}, {self.stat})"

    def _is_condition(self, expression: ex.Expression) -> bool:
        match self._resolve(expression):
            case ex.TextTest() | ex.Glob():
                return True
            case ex.Not(inner):
                return self._is_condition(inner)
            case ex.Binary(operator, left, right):
                both = operator in ("&", "|", "^") and self._is_condition(left) and self._is_condition(right)
                return operator in COMPARISONS or both
            case _C(_, kind):
                return kind == "bool"
            case _Kept(_, field):
                return field.kind == "bool"
        return False

    def _binary(self, expression: ex.Binary) -> tuple[str, bool]:
        left, left_signed = self.integer(expression.left)
        right, right_signed = self.integer(expression.right)
        operator = expression.operator
        if operator in COMPARISONS:
            if left_signed == right_signed:
                return f"(u64)({left} {operator} {right})", False
            # C would make the signed one unsigned first.
            order = f"order({left}, {right}) {operator} 0" if left_signed else f"0 {operator} order({right}, {left})"
            return f"(u64)({order})", False
        if operator in ("<<", ">>"):
            return f"(({left}) {operator} (({right}) & 63))", left_signed
        signed = (left_signed and right_signed) if operator == "&" else (left_signed or right_signed)
        if signed:
            left, right = f"(s64)({left})", f"(s64)({right})"
        if operator in ("/", "%") and signed:  # BPF has no signed division
            return f"signed_{'divide' if operator == '/' else 'modulo'}({left}, {right})", True
        return f"(({left}) {operator} ({right}))", signed

    def _place(self, text: ex.Expression, compared: int = 0) -> TextPlace:
        """Where a text lies that `compared` bytes are compared with."""
        resolved = self._resolve(text)
        if isinstance(resolved, ex.Text):
            return TextPlace("USER_STRING", self.pointer(resolved.pointer), resolved.size)
        if isinstance(resolved, ex.Buffer):
            length = self.integer(resolved.length)[0]
            kind: Literal["USER_TEXT", "USER_BYTES"] = "USER_TEXT" if resolved.text else "USER_BYTES"
            return TextPlace(kind, self.pointer(resolved.pointer), resolved.size, length)
        if isinstance(resolved, _Comm):
            opening = f"char comm[{COMM_SIZE}]; bpf_get_current_comm(comm, {COMM_SIZE});"
            return TextPlace("KERNEL_STRING", "comm", COMM_SIZE, opening=opening)
        if isinstance(resolved, _Kept) and resolved.field.is_text:
            kept = resolved.field
            if compared > kept.size:
                raise UsageError(
                    f"{self.scope.what}: {kept.name} keeps {kept.size} bytes of its string, the other has {compared}",
                    hint=f"keep more of it: cstr(…, {compared})",
                )
            own: Literal["KERNEL_STRING", "KERNEL_BYTES"] = "KERNEL_STRING" if kept.kind == "str" else "KERNEL_BYTES"
            return TextPlace(own, f"&s->f{resolved.index}", kept.size, f"s->f{resolved.index}_length")
        raise UsageError(
            f"{self.scope.what}: only a string can be compared with a string",
            hint="read one behind a pointer: cstr(arg(1))",
        )

    def _resolve(self, expression: ex.Expression) -> ex.Expression:
        """Names and arguments → what they are here."""
        if isinstance(expression, ex.Name):
            name = expression.name
            if self.scope.kept is not None:
                for index, kept in enumerate(self.scope.kept.fields):
                    if kept.name == name:
                        return _Kept(index, kept)
            if name in self.scope.derived:
                return self._resolve(self.scope.derived[name])
            if name not in ex.BUILTINS or any(argument.name == name for argument in self.scope.arguments):
                return self._resolve(ex.Arg(name))
            return self._builtin(name)
        if isinstance(expression, ex.Arg):
            if isinstance(expression.which, str) and expression.which in self.scope.derived:
                return self._resolve(self.scope.derived[expression.which])
            return self._argument(self.scope.argument(expression.which))
        if isinstance(expression, ex.Text):
            counted = self._resolve(expression.pointer)
            if isinstance(counted, ex.Buffer) and counted.text:  # an argument that has its length beside it
                return replace(counted, size=expression.size)
        if isinstance(expression, ex.Memory) and expression.type in ("f32", "f64"):
            bits = self._memory(expression)
            return _Float(bits if expression.type == "f64" else f"widen({bits})")
        if isinstance(expression, ex.Stored):
            return self._stored(expression)
        return expression

    def _stored(self, stored: ex.Stored) -> ex.Expression:
        self.uses.add("id")
        name, at = store_name(stored.number), store_key(self.integer(stored.key)[0])
        found = f"{at} struct {name} *entry = {name}.lookup(&at);"
        if stored.kind == "bool":
            return _C(f"({{ {found} (u64)(entry != 0); }})", "bool")
        c = f"({{ {found} entry ? entry->f{stored.index} : 0; }})"
        return _Stack(c) if stored.kind == "stack" else _C(c, stored.kind)

    def _argument(self, argument: Argument) -> ex.Expression:
        value = self._operand(argument.operand)
        match argument.type:
            case "str" | "json":
                return ex.Text(value, self.scope.string_size)
            case "bytes" | "text" as type:
                length = self._operand(argument.operand + 1)
                return ex.Buffer(value, length, self.scope.string_size, text=type == "text")
            case "f64":
                return _Float(value.c)
            case "f32":
                return _Float(f"widen({value.c})")
            case "enum":
                return _C(_cast(value.c, "i32")[0], "i64", argument.names)
            case "unreadable":
                raise UsageError(
                    f"{self.scope.what}: the argument {argument.name!r} cannot be read where the build puts it"
                )
            case "bool":
                return _C(f"(u64)(({value.c}) != 0)", "bool")
            case "pointer" | "u64" | "":
                return value
            case type:
                c, signed = _cast(value.c, type)
                return _C(c, "i64" if signed else "u64")

    def _operand(self, index: int) -> _C:
        if self.scope.kind == "usdt":
            self.uses.add("layout")
            return _C(f"usdt_operand(ctx, layout + {index}, {self.stat})")
        calls = self.scope.calls
        if index < len(calls.registers):
            return _C(self.register(calls.registers[index]))
        above = calls.displacement + calls.word * (index - len(calls.registers))
        return _C(f"read_user({self.register('sp')} + {above}, {calls.word}, {self.stat})")

    def _named_register(self, name: str) -> str:
        known = PT_REGS[self.scope.machine]
        if name not in known:
            raise UsageError(f"{self.scope.what}: there is no register {name!r}", hint=f"one of {', '.join(known)}")
        return self.register(name)

    def _builtin(self, name: str) -> ex.Expression:
        if name == "comm":
            return _Comm()
        if name == "latency" and self.scope.kept is None:
            raise UsageError(f"{self.scope.what}: only a pair has a latency", hint="session.pair(start, end)")
        if name == "retval":
            if self.scope.kind != "return":
                raise UsageError(f"{self.scope.what}: only a function's return has a return value")
            self.uses.add("cookie")
            value = self.register(RETURN_REGISTER[self.scope.machine])
            return _C(f"(s64)(cookie & {EXIT_LACKS_VALUE} ? missing({self.stat}) : {value})", "i64")
        if name == "ustack":
            self.uses |= {"stack"} if self.scope.kind == "entry" else {"stack", "cookie"}
            return _Stack(self.stack)
        if name == "probe":
            self.uses.add("cookie")
            return _C(PROBE_NUMBER, "probe")
        if name == "goroutine":
            return self._goroutine()
        if name in ("ip", "caller") and self.scope.kind == "return":
            return _C(self.returned_to())
        if name == "ip":
            return _C(self.register(INSTRUCTION[self.scope.machine]))
        if name == "caller":
            if self.scope.kind == "usdt":
                raise UsageError(
                    f"{self.scope.what}: where a probe's function was called from is not known there",
                    hint="ustack, or the function's entry",
                )
            return _C(self.return_address())
        code, uses = {
            "pid": ("(id >> 32)", "id"),
            "tid": ("(u64)(u32)id", "id"),
            "uid": ("(u64)(u32)bpf_get_current_uid_gid()", ""),
            "gid": ("(bpf_get_current_uid_gid() >> 32)", ""),
            "cgroup": ("bpf_get_current_cgroup_id()", ""),
            "cpu": ("(u64)bpf_get_smp_processor_id()", ""),
            "time": ("now", "now"),
            "latency": ("latency", "latency"),
        }[name]
        self.uses.add(uses)
        return _C(code)

    def _goroutine(self) -> _C:
        if self.scope.convention != "go":
            raise UsageError(f"{self.scope.what}: only functions of Go programs are run by goroutines", hint="tid")
        if not self.scope.goid_offset:
            raise UsageError(
                f"{self.scope.what}: where this version of Go has the number of a goroutine is not known",
                hint="Go 1.18 to 1.24",
            )
        routine = self.register(self.scope.calls.routine)
        return _C(f"read_user({routine} + {self.parameter(self.scope.goid_offset)}, 8, {self.stat})")

    def returned_to(self) -> str:
        """The C of where a function returns to: its return probe is hit there, its exits at the instruction before."""
        self.uses.add("cookie")
        return f"(cookie & {EXIT_BIT}u ? {self.return_address()} : {self.register(INSTRUCTION[self.scope.machine])})"

    def return_address(self) -> str:
        """The C of where a function will return to, at its first instruction and at its exits."""
        if self.scope.machine == "x86_64":
            return f"read_user({self.register('sp')}, {self.scope.calls.word}, {self.stat})"
        return self.register("regs[30]")

    def register(self, name: str) -> str:
        """A register of the process, as struct pt_regs calls it: a variable that the hook opens with.

        Read where it is needed, several reads would share an address within `ctx`, which the verifier refuses.
        """
        self.registers.setdefault(name, f"register_{len(self.registers)}")
        return self.registers[name]

    def parameter(self, value: int) -> str:
        """A constant, as a place that the loader fills."""
        self.parameters.append(value)
        return f"PARAMETER({len(self.parameters) - 1})"


def store_name(number: int) -> str:
    """The C name of a session's map, and of the struct of its values."""
    return f"store_{number}"


def store_key(key: str) -> str:
    """A statement that declares `at`, where the entry of a key of this process is."""
    return f"struct store_key at = {{ .pid = id >> 32, .key = {key} }};"


# What names become: leaves that only the renderer knows.


@dataclass(eq=False, repr=False)
class _C(ex.Expression):
    c: str
    kind: Literal["u64", "i64", "bool", "probe"] = "u64"
    names: tuple[tuple[str, int], ...] = ()


@dataclass(eq=False, repr=False)
class _Float(ex.Expression):
    c: str


@dataclass(eq=False, repr=False)
class _Stack(ex.Expression):
    c: str


@dataclass(eq=False, repr=False)
class _Comm(ex.Expression):
    pass


@dataclass(eq=False, repr=False)
class _Kept(ex.Expression):
    index: int
    field: Field

    @property
    def c(self) -> str:
        return f"s->f{self.index}"


def _cast(c: str, type: str) -> tuple[str, bool]:
    signed = type.startswith("i")
    narrow = f"({'s' if signed else 'u'}{type[1:]})({c})"
    return (f"(s64){narrow}", True) if signed else (f"(u64){narrow}", False)
