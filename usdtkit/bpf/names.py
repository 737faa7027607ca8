"""Names in expressions → what they mean at one probe: what a pair keeps, an argument, or a builtin, in this order.

Input: a name or an argument, and the `Access` of the hook. Output: a leaf of `values`, or text behind a pointer, for
`render`.
"""

from __future__ import annotations

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.access import Access
from usdtkit.bpf.cookie import PROBE_NUMBER
from usdtkit.bpf.values import CommandName, FloatBits, IntegerValue, Kept, OptionalNumber, StackId, cast
from usdtkit.errors import UsageError
from usdtkit.model import Argument

# Builtins that are the same at every probe: their C, and what it uses of `program.OPENING`.
_EVERYWHERE = {
    "pid": ("(id >> 32)", "id"),
    "tid": ("(u64)(u32)id", "id"),
    "uid": ("(u64)(u32)bpf_get_current_uid_gid()", ""),
    "gid": ("(bpf_get_current_uid_gid() >> 32)", ""),
    "cgroup": ("bpf_get_current_cgroup_id()", ""),
    "cpu": ("(u64)bpf_get_smp_processor_id()", ""),
    "time": ("now", "now"),
    "latency": ("latency", "latency"),
}


def resolve_name(name: str, access: Access) -> ex.Expression:
    """What a name means. UsageError where it means nothing here."""
    scope = access.scope
    if scope.kept is not None:
        for index, kept in enumerate(scope.kept.fields):
            if kept.name == name:
                return Kept(index, kept)
    if name not in ex.BUILTINS or any(argument.name == name for argument in scope.arguments):
        return resolve_argument(scope.argument(name), access)
    return _builtin(name, access)


def resolve_argument(argument: Argument, access: Access) -> ex.Expression:
    """The value of an argument, by its type. UsageError where no program can read it."""
    value = _value(argument, access)
    if argument.optional and isinstance(value, (IntegerValue, FloatBits)):
        return OptionalNumber(value, access.operand(argument.operand + 1).c)
    return value


def _value(argument: Argument, access: Access) -> ex.Expression:
    value = access.operand(argument.operand)
    match argument.type:
        case "str" | "json":
            return ex.Text(value, access.scope.string_size)
        case "bytes" | "text" as type:
            length = access.operand(argument.operand + 1)
            return ex.Buffer(value, length, access.scope.string_size, text=type == "text")
        case "f64":
            return FloatBits(value.c)
        case "f32":
            return FloatBits(f"widen({value.c})")
        case "enum":
            return IntegerValue(cast(value.c, "i32")[0], "i64", argument.names)
        case "unreadable":
            raise UsageError(
                f"{access.scope.what}: the argument {argument.name!r} is in a place where a probe cannot read it"
            )
        case "bool":
            return IntegerValue(f"(u64)(({value.c}) != 0)", "bool")
        case "pointer" | "u64" | "":
            return value
        case type:
            c, signed = cast(value.c, type)
            return IntegerValue(c, "i64" if signed else "u64")


def _builtin(name: str, access: Access) -> ex.Expression:
    scope = access.scope
    if name == "comm":
        return CommandName()
    if name == "latency" and scope.kept is None:
        raise UsageError(f"{scope.what}: only a pair has a latency", hint="session.pair(start, end)")
    if name == "retval":
        if scope.kind != "return":
            raise UsageError(f"{scope.what}: only a function's return has a return value")
        return access.return_value()
    if name in ("ustack", "pycaller"):
        access.uses |= {"stack"} if scope.kind in ("entry", "clock") else {"stack", "cookie"}
        return StackId(access.stack, "stack" if name == "ustack" else "pyframe")
    if name == "probe":
        access.uses.add("cookie")
        return IntegerValue(PROBE_NUMBER, "probe")
    if name == "goid":
        return access.goid()
    if name in ("ip", "caller") and scope.kind == "return":
        return IntegerValue(access.returned_to())
    if name == "ip":
        return IntegerValue(access.instruction())
    if name == "caller":
        if scope.kind == "usdt":
            raise UsageError(
                f"{scope.what}: the caller is not known at a USDT probe",
                hint="ustack, or the function's entry",
            )
        if scope.kind == "clock":
            raise UsageError(
                f"{scope.what}: where the function that a clock interrupts was called from is not known",
                hint="ustack",
            )
        return IntegerValue(access.return_address())
    code, used = _EVERYWHERE[name]
    access.uses.add(used)
    return IntegerValue(code)
