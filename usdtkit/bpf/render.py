"""One expression at one probe → C text.

Input: `expressions`, and the `Access` of a hook. Output: C for `statements`, `calls`, `pairs` and `program`. Text that
a user has written never reaches the compiler: names become numbers of fields, constants become parameters, and literals
become parameters or entries of the map `globs`.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.access import Access
from usdtkit.bpf.interning import Interning
from usdtkit.bpf.layout import Field
from usdtkit.bpf.names import resolve_argument, resolve_name
from usdtkit.bpf.texts import TextPlace, pack_glob, render_glob, render_test
from usdtkit.bpf.values import (
    COMPARISONS,
    CommandName,
    FloatBits,
    Integer,
    IntegerValue,
    Kept,
    OptionalNumber,
    StackId,
    binary,
    cast,
)
from usdtkit.errors import UsageError
from usdtkit.records import dataclass, replace

COMM_SIZE = 16
# The key of every map of a session: each entry belongs to one process.
STORE_KEY = "struct store_key { u64 pid, key; };"


@dataclass
class Renderer:
    """Renders for the hook of `access`; `globs` are the patterns, `texts` the interned texts of the whole program."""

    access: Access
    globs: list[bytes]
    texts: Interning

    def field(self, name: str, expression: ex.Expression) -> Field:
        """The field of a record that holds the value of `expression`."""
        resolved = self._found(expression)
        if isinstance(resolved, OptionalNumber):
            return replace(self.field(name, resolved.value), optional=True)
        if isinstance(resolved, (ex.Text, ex.Buffer)):
            is_text = isinstance(resolved, ex.Text) or resolved.text
            return Field(name, "str" if is_text else "bytes", resolved.size)
        if isinstance(resolved, Kept):
            return replace(resolved.field, name=name)
        if isinstance(resolved, CommandName):
            return Field(name, "str", COMM_SIZE)
        if isinstance(resolved, FloatBits):
            return Field(name, "f64")
        if isinstance(resolved, StackId):
            return Field(name, resolved.kind)
        if isinstance(resolved, ex.Interned):
            return Field(name, "interned")
        if isinstance(resolved, IntegerValue):
            return Field(name, resolved.kind, names=resolved.names)
        if self._is_condition(resolved):
            return Field(name, "bool")
        return Field(name, "i64" if self.integer(resolved)[1] else "u64")

    def store(self, expression: ex.Expression, into: str, capacity: int, optional: bool = False) -> list[str]:
        """Statements that write the value to `into` (`r->f0`), which `field` has described; a text takes `capacity`
        bytes at most. For an `optional` field they write, too, whether there is a value."""
        resolved = self._found(expression)
        if isinstance(resolved, OptionalNumber):
            presence = [f"{into}_present = {resolved.present};"] if optional else []
            return [*presence, *self.store(resolved.value, into, capacity)]
        if optional and isinstance(resolved, Kept):
            return [f"{into}_present = {resolved.c}_present;", *self.store(expression, into, capacity)]
        if isinstance(resolved, ex.Text):
            most, pointer = min(capacity, resolved.size + 2), self.pointer(resolved.pointer)
            return [f"{into}_length = counted(read_string(&{into}, {most}, {pointer}), {self.access.unreadable});"]
        if isinstance(resolved, ex.Buffer):
            pointer, length = self.pointer(resolved.pointer), self.integer(resolved.length)[0]
            read = f"read_buffer(&{into}, {min(capacity, resolved.size + 1)}, {pointer}, {length})"
            return [f"{into}_length = counted({read}, {self.access.unreadable});"]
        if isinstance(resolved, Kept) and resolved.field.is_text:
            return [
                f"{into}_length = {resolved.c}_length;",
                f"bpf_probe_read_kernel(&{into}, {min(capacity, resolved.field.capacity)}, &{resolved.c});",
            ]
        if isinstance(resolved, CommandName):
            return [f"{into}_length = {COMM_SIZE};", f"bpf_get_current_comm(&{into}, {COMM_SIZE});"]
        if isinstance(resolved, ex.Interned):
            return [f"{into} = {self._interned(resolved)};"]
        if isinstance(resolved, (FloatBits, Kept, StackId)):
            return [f"{into} = {resolved.c};"]
        return [f"{into} = {self.integer(resolved)[0]};"]

    def length(self, expression: ex.Expression, scratch: str) -> str:
        """The C of how many bytes a text needs; `scratch` is memory that can hold all of it."""
        resolved = self._resolve(expression)
        match resolved:
            case ex.Text(pointer, size):
                return f"read_string({scratch}, {size + 2}, {self.pointer(pointer)})"
            case ex.Buffer(_, length, size):
                return f"at_most({self.integer(length)[0]}, {size + 1})"
            case Kept(_, kept):
                return f"at_most({resolved.c}_length, {kept.capacity})"
            case _:
                return str(COMM_SIZE)

    def integer(self, expression: ex.Expression) -> Integer:
        """The C of an integer or a condition. UsageError for a text, a float or a stack."""
        resolved = self._resolve(expression)
        match resolved:
            case ex.Constant(value):
                constant = self.access.parameter(value)
                return (f"(s64){constant}", True) if value < 0 else (constant, False)
            case ex.Cast(inner, type):
                return cast(self.pointer(inner), type)
            case ex.Register(name):
                return self.access.named_register(name), False
            case ex.Binary(operator, left, right):
                return binary(operator, self.integer(left), self.integer(right))
            case ex.Not(inner):
                c, signed = self.integer(inner)
                return (f"(u64)!({c})", False) if self._is_condition(inner) else (f"(~({c}))", signed)
            case ex.NumberInMemory(_, _, type):
                return cast(self._memory(resolved), type)
            case ex.TextTest(text, literal):
                place = self._text_place(text, len(literal))
                return render_test(resolved, place, self.access.parameter, self.access.unreadable), False
            case ex.Glob(text):
                self.globs.append(pack_glob(resolved))
                return render_glob(len(self.globs) - 1, self._text_place(text), self.access.unreadable), False
            case Kept() if not resolved.field.is_text and resolved.field.kind not in (
                "f64",
                "stack",
                "pyframe",
                "interned",
            ):
                return resolved.c, resolved.field.kind == "i64"
            case IntegerValue(c, kind):
                return c, kind == "i64"
            case _:
                raise UsageError(
                    f"{self.access.scope.what}: an integer is needed here, not a string, a float or a stack"
                )

    def variable(self, expression: ex.Expression) -> tuple[str, str]:
        """The C type and the C of a value: an integer, the address of a text, or the bits of a float as a double's."""
        resolved = self._resolve(expression)
        if isinstance(resolved, (ex.Text, ex.Buffer)):
            return "u64", self.pointer(resolved)
        if isinstance(resolved, FloatBits):
            return "u64", resolved.c
        c, signed = self.integer(resolved)
        return "s64" if signed else "u64", c

    def pointer(self, expression: ex.Expression) -> str:
        """The C of an address. For an argument that is known to be a string or bytes, it is where these lie."""
        resolved = self._resolve(expression)
        if isinstance(resolved, (ex.Text, ex.Buffer)):
            return self.pointer(resolved.pointer)
        return self.integer(resolved)[0]

    def _memory(self, memory: ex.NumberInMemory) -> str:
        at = self.pointer(memory.address)
        if memory.offset:
            at = f"({at}) + {self.access.parameter(memory.offset)}"
        return f"read_user({at}, {int(memory.type[1:]) // 8}, {self.access.unreadable})"

    def _is_condition(self, expression: ex.Expression) -> bool:
        match self._resolve(expression):
            case ex.TextTest() | ex.Glob():
                return True
            case ex.Not(inner):
                return self._is_condition(inner)
            case ex.Binary(operator, left, right):
                both = operator in ("&", "|", "^") and self._is_condition(left) and self._is_condition(right)
                return operator in COMPARISONS or both
            case IntegerValue(_, kind):
                return kind == "bool"
            case Kept(_, field):
                return field.kind == "bool"
        return False

    def _text_place(self, text: ex.Expression, compared: int = 0) -> TextPlace:
        """Where a text lies that `compared` bytes are compared with. UsageError for what is no text."""
        resolved, what = self._resolve(text), self.access.scope.what
        if isinstance(resolved, ex.Text):
            return TextPlace("USER_STRING", self.pointer(resolved.pointer), resolved.size)
        if isinstance(resolved, ex.Buffer):
            length = self.integer(resolved.length)[0]
            kind: Literal["USER_TEXT", "USER_BYTES"] = "USER_TEXT" if resolved.text else "USER_BYTES"
            return TextPlace(kind, self.pointer(resolved.pointer), resolved.size, length)
        if isinstance(resolved, CommandName):
            opening = f"char comm[{COMM_SIZE}]; bpf_get_current_comm(comm, {COMM_SIZE});"
            return TextPlace("KERNEL_STRING", "comm", COMM_SIZE, opening=opening)
        if isinstance(resolved, Kept) and resolved.field.is_text:
            kept = resolved.field
            if compared > kept.size:
                raise UsageError(
                    f"{what}: {kept.name} keeps {kept.size} bytes of its string, the other has {compared}",
                    hint=f"keep more of it: cstr(…, {compared})",
                )
            copied: Literal["KERNEL_STRING", "KERNEL_BYTES"]
            copied = "KERNEL_STRING" if kept.kind == "str" else "KERNEL_BYTES"
            return TextPlace(copied, f"&{resolved.c}", kept.size, f"{resolved.c}_length")
        raise UsageError(
            f"{what}: only a string can be compared with a string", hint="read one behind a pointer: cstr(arg(1))"
        )

    def _interned(self, interned: ex.Interned) -> str:
        """The C of the number of a text, which sends the text if it is new."""
        field, place = self.field("text", interned.text), self._text_place(interned.text)
        if isinstance(self._resolve(interned.text), CommandName):
            place = replace(place, length=str(COMM_SIZE))
        kind, layout = self.texts.record(field)
        copy = self.store(interned.text, "t->f0", layout.fields[0].capacity)
        return self.texts.render(kind, interned.scanner, place, copy, self.access.parameter, self.access.unreadable)

    def _resolve(self, expression: ex.Expression) -> ex.Expression:
        """What `_found` returns, but 0 for a number that is None."""
        found = self._found(expression)
        return found.value if isinstance(found, OptionalNumber) else found

    def _found(self, expression: ex.Expression) -> ex.Expression:
        """The expression, or what it stands for here: a name, an argument, an entry of a map, a float in memory."""
        match expression:
            case ex.Name(str(name)) | ex.Arg(str(name)) if name in self.access.scope.derived:
                return self._found(self.access.scope.derived[name])
            case ex.Name(name):
                return resolve_name(name, self.access)
            case ex.Arg(which):
                return resolve_argument(self.access.scope.argument(which), self.access)
            case ex.Text(pointer, size):
                argument = self._resolve(pointer)
                if isinstance(argument, ex.Buffer) and argument.text:  # it has its length beside it
                    return replace(argument, size=size)
            case ex.NumberInMemory(_, _, "f32" | "f64" as type):
                bits = self._memory(expression)
                return FloatBits(bits if type == "f64" else f"widen({bits})")
            case ex.MapValue():
                return self._stored(expression)
            case ex.Ancestor(generations):
                self.access.uses |= {"id", "ancestor"}
                return IntegerValue(f"ancestor(id >> 32, {generations})")
            case ex.Chosen():
                return IntegerValue("chosen", "bool")
            case ex.ThreadValue(number, index, kind, size):
                self.access.threads.add(number)
                self.access.reads.add(number)
                if kind == "bool":
                    return IntegerValue(f"(u64)(v{number} != 0)", "bool")
                return Kept(index, Field("", kind, size), f"r{number}")
        return expression

    def _stored(self, stored: ex.MapValue) -> ex.Expression:
        self.access.uses.add("id")
        name, at = store_name(stored.number), store_key(self.integer(stored.key)[0])
        entry = f"{at} struct {name} *entry = {name}.lookup(&at);"
        if stored.kind == "bool":
            return IntegerValue(f"({{ {entry} (u64)(entry != 0); }})", "bool")
        c = f"({{ {entry} entry ? entry->f{stored.index} : 0; }})"
        return StackId(c) if stored.kind == "stack" else IntegerValue(c, stored.kind)


def store_name(number: int) -> str:
    """The C name of a session's map, and of the struct of its values."""
    return f"store_{number}"


def store_key(key: str) -> str:
    """A statement that declares `at`, the place of a key's entry for the process that runs."""
    return f"struct store_key at = {{ .pid = id >> 32, .key = {key} }};"
