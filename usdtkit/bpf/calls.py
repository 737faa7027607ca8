"""How a call of a function and its return find each other → statements of their hooks.

Input: the two hooks of a pair that meet by "frame", from `pairs`. Output: C that stores what the entry keeps, and that
finds it again at the return.

They meet by the process and the stack frame. The stack pointer at a function's first instruction is the same at its
exits, so recursion comes out right, and so do coroutines, which may return in another thread than they were called in.
A call that is left in another way (an exception, longjmp, a cancelled thread) stays in the table until the same
function is called with the same frame, or until the table drops the entry that was unused for longest; `trace.plan`
finds out how many there were. Go moves its stacks, but the distance from the end of a stack stays the same: there the
frame is that distance, in the stack of one goroutine.
"""

from __future__ import annotations

from usdtkit.bpf.access import Access
from usdtkit.bpf.cookie import EXIT_BIT, EXIT_CONDITION, EXIT_IS_BRANCH, EXIT_IS_SHARED, FUNCTION_NUMBER
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.statements import Counter
from usdtkit.errors import UsageError

# The beginning of an entry. `thread` is the thread that called. `back` is the address that the call will return to, or
# 0 if it need not be compared.
CALL_HEADER = (("start", "u64"), ("thread", "u64"), ("back", "u64"))
LARGEST_ON_STACK = 256  # bytes of an entry that is put together on the program's stack, which has 512


def enter(
    number: int, layout: Layout, stores: list[str], access: Access, count: Counter, *, is_filled: bool = False
) -> list[str]:
    """Statements of a call's entry. An entry of the same frame that is still there was left, and is replaced.

    One that `is_filled` can be found while it is open: see `innermost`.
    """
    name = f"pair_{number}"
    back = f"s->back = cookie & {EXIT_IS_SHARED} ? {access.return_address()} : 0;"
    opening = [*_call_key(access), f"struct {name} *s = 0;", *(_note_innermost(number) if is_filled else ())]
    if fits_stack(layout):
        return [
            *opening,
            f"struct {name} call = {{}}; s = &call; s->thread = (u32)id; {back}",
            *stores,
            "s->start = bpf_ktime_get_ns();",
            f"if ({name}.update(&key, &call)) {{ {count('full')} return 0; }}",
        ]
    return [
        *opening,
        f"s = {name}.lookup(&key);",
        *("if (!s) {", *insert_blank(number, count), "}"),
        f"s->thread = (u32)id; {back}",
        *stores,
        "s->start = bpf_ktime_get_ns();",
    ]


def leave(number: int, access: Access, count: Counter) -> list[str]:
    """Statements that find the call that ends here, as `s`, or end the hook where there is none.

    Through an exit that is shared, calls of other functions leave too. Then there is none, which is not counted.
    """
    access.uses |= {"id", "cookie"}
    return [
        *_not_taken(access),
        *_call_key(access),
        f"struct pair_{number} *s = pair_{number}.lookup(&key);",
        f"if (!s && !(cookie & {EXIT_IS_SHARED})) {count('unmatched')}",
        "if (!s) return 0;",
        f"if (cookie & {EXIT_IS_SHARED} && is_another(s->back, {access.returned_to()})) return 0;",
    ]


def innermost(number: int, access: Access) -> list[str]:
    """Statements that find the call that the thread has entered last, as `open`: 0 if that has ended."""
    if _is_go(access):
        raise UsageError(f"{access.scope.what}: what a call keeps cannot be filled in a Go program")
    access.uses.add("id")
    return [
        "struct call_key key = {}; u32 thread = id;",
        f"struct call_key *known = innermost_{number}.lookup(&thread);",
        "if (known) { key.owner = known->owner; key.frame = known->frame; }",
        f"struct pair_{number} *open = pair_{number}.lookup(&key);",
    ]


def _note_innermost(number: int) -> list[str]:
    """Statements that note which call a thread has entered last. A loop enters the same frame again and again."""
    name = f"innermost_{number}"
    return [
        f"u32 thread = id; struct call_key *known = {name}.lookup(&thread);",
        f"if (!known || known->frame != key.frame || known->owner != key.owner) {name}.update(&thread, &key);",
    ]


def guard(number: int, access: Access, count: Counter) -> list[str]:
    """Statements of a return that ends no pair: they let through only calls whose entry was seen."""
    return ["{", *leave(number, access, count), f"pair_{number}.delete(&key); }}"]


def call_key_type(access: Access) -> str:
    """The C type of the key of a call."""
    return "struct go_call_key" if _is_go(access) else "struct call_key"


def fits_stack(layout: Layout) -> bool:
    """Whether an entry is put together on the program's stack, which saves a look at the table."""
    return layout.size <= LARGEST_ON_STACK and not any(field.is_text for field in layout.fields)


def insert_blank(number: int, count: Counter) -> list[str]:
    """Statements that make an entry of `key`, without values yet, and set `s` to it."""
    name = f"pair_{number}"
    return [
        f"u32 zero = 0; struct {name} *blank = blank_{number}.lookup(&zero);",
        f"if (!blank || {name}.update(&key, blank)) {{ {count('full')} return 0; }}",
        f"s = {name}.lookup(&key);",
        "if (!s) return 0;",
    ]


def caller_of(entry: bytes) -> int:
    """The thread that made a call, of an entry in the table of a pair that meets by frame."""
    return int.from_bytes(entry[8:16], "little")


def _not_taken(access: Access) -> list[str]:
    """Statements that end the hook at a conditional jump that goes on within the function."""
    if not access.scope.abi.flags:
        return []
    taken = f"is_taken({access.register(access.scope.abi.flags)}, cookie & {EXIT_CONDITION})"
    return [f"if (cookie & {EXIT_IS_BRANCH} && !{taken}) return 0;"]


def _is_go(access: Access) -> bool:
    return access.scope.convention == "go"


def _call_key(access: Access) -> list[str]:
    """Statements that declare `key`: which call this is, of which process and function."""
    frame = access.register("sp")
    if access.scope.kind == "return" and (slot := access.scope.calls.return_slot):
        frame += f" - (cookie & {EXIT_BIT}u ? 0 : {slot})"  # a return has taken its address from the stack
    goroutine = ""
    if _is_go(access):
        # The descriptor of a goroutine begins with the bounds of its stack.
        routine = access.register(access.scope.calls.routine)
        frame = f"read_user({routine} + 8, 8, {access.unreadable}) - ({frame})"
        goroutine = f", .routine = {routine}"
    owner = f"id >> 32 << 32 | {FUNCTION_NUMBER}"
    return [f"{call_key_type(access)} key = {{ .owner = {owner}, .frame = {frame}{goroutine} }};"]
