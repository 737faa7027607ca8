"""Hooks with their actions → one BPF program as C text, with the layouts of everything it sends or counts.

Input: `Hook`s, made by `trace` from resolved probes and a user's expressions. Output: `Program`, for `compiler`,
`loader` and the readers in `trace`. Deterministic and pure: equal hooks give equal text, on any host.

How a program reads a USDT argument: the sites of a probe differ in where an argument lies, so the text does not say.
Each site's cookie (see `cookie`) names the probe and one of the lists of operands in the map `operands`. So text and
bytecode are the same for every build of the traced program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Field, Layout
from usdtkit.bpf.render import AT_ENTRY_BIT, MAX_OPERANDS, RETURN_SLOT, HookKind, Renderer, Scope
from usdtkit.errors import UsageError
from usdtkit.model import Argument

# Each hook's counters in the map `stats`; one more line here needs no other change in the kernel's part.
COUNTERS = ("hits", "lost", "full", "unmatched", "overflow", "unreadable", "no_stack")
COUNTERS_ROOM = 8

RECORD_HEADER = (("kind", "u32"), ("probe", "u32"), ("time", "u64"), ("pid", "u32"), ("tid", "u32"))
MAX_RECORD = 1 << 16
STACK_RECORDS = "stack_records"  # the ring buffer of stacks.c
# A cookie has 32 bits, so that a kernel whose links carry none can be given it as one instruction's constant.
COOKIE_LIST_BITS = 12
MAX_LISTS = AT_ENTRY_BIT  # the list's highest bit says where the site is
MAX_PROBES = 1 << 32 - COOKIE_LIST_BITS
MAX_KEY = 256
AGGREGATION_ENTRIES = 10_240
# What pairs keep is allocated in advance.
PAIR_ENTRIES, PAIR_BYTES = 10_240, 4 << 20
MAX_NESTING = 32
HISTOGRAM_SUM = 65  # the slot after the buckets: value v lies in bucket v.bit_length()


@dataclass(frozen=True)
class Emit:
    """Send an event of kind `number` with these fields."""

    number: int
    fields: dict[str, ex.Expression]


@dataclass(frozen=True)
class Count:
    """Count hits by the values of `keys`, in the table `number`."""

    number: int
    keys: dict[str, ex.Expression]


@dataclass(frozen=True)
class Hist:
    """Count `value` in buckets of powers of two, by the values of `keys`, in the table `number`."""

    number: int
    value: ex.Expression
    keys: dict[str, ex.Expression]


Action = Emit | Count | Hist
Counter = Callable[..., str]  # the name of a counter, and by how much → the statement that raises it


@dataclass(frozen=True)
class Block:
    """An action, and what must be true for it."""

    condition: ex.Expression | None
    action: Action


@dataclass
class Hook:
    """One function of the program, run at one kind of site.

    A pair is two hooks: `start` says what the first keeps, and the second (`after` the first) sees it.
    """

    index: int
    what: str
    kind: HookKind
    machine: str
    arguments: tuple[Argument, ...]
    string_size: int = 256
    start: dict[str, ex.Expression] | None = None
    after: Hook | None = None
    blocks: list[Block] = field(default_factory=list)

    @property
    def function(self) -> str:
        """The name of its function in the program."""
        return f"hook_{self.index}"


@dataclass(frozen=True)
class Table:
    """How to read an aggregation: the layout of its keys, and whether what a histogram sums up is signed."""

    keys: Layout
    signed: bool = False


@dataclass(frozen=True)
class Program:
    """The text, the values of its parameters, and by their numbers the layouts of events, and the tables.

    With `has_stacks`, definitions of stacks come through the map STACK_RECORDS.
    """

    text: str
    parameters: tuple[int, ...]
    records: dict[int, Layout]
    tables: dict[int, Table]
    has_stacks: bool


def table_name(number: int) -> str:
    """The map of an aggregation."""
    return f"table_{number}"


def build(hooks: Sequence[Hook]) -> Program:
    """Render hooks, in the order of their `index`, into one program."""
    return _Builder().build(hooks)


def cookie(probe: int, operand_list: int, at_entry: bool = False) -> int:
    """A site's cookie: the number of its probe, of its list in the map `operands`, and if it begins a function."""
    if probe >= MAX_PROBES or operand_list >= MAX_LISTS:
        raise UsageError(
            f"more than {MAX_PROBES} probes, or {MAX_LISTS} different argument layouts, in one session",
            hint="narrow the pattern, or trace in several sessions",
        )
    return probe << COOKIE_LIST_BITS | at_entry * AT_ENTRY_BIT | operand_list


class _Builder:
    def __init__(self) -> None:
        self.declarations: list[str] = []
        self.functions: list[str] = []
        self.parameters: list[int] = []
        self.records: dict[int, Layout] = {}
        self.tables: dict[int, Table] = {}
        self.kept: dict[int, Layout] = {}
        self.has_stacks = False

    def build(self, hooks: Sequence[Hook]) -> Program:
        for hook in hooks:
            self._function(hook)
        stacks = [STACKS] if self.has_stacks else []
        text = "\n".join([PRELUDE, *stacks, *self.declarations, *self.functions, ""])
        return Program(text, tuple(self.parameters), self.records, self.tables, self.has_stacks)

    def _function(self, hook: Hook) -> None:
        kept = self.kept[hook.after.index] if hook.after else None
        scope = Scope(hook.what, hook.kind, hook.machine, hook.arguments, kept, hook.string_size)
        counters = hook.index * COUNTERS_ROOM
        unreadable, no_stack = (counters + COUNTERS.index(name) for name in ("unreadable", "no_stack"))
        renderer = Renderer(scope, unreadable, no_stack, self.parameters)

        def count(name: str, amount: int = 1) -> str:
            return f"add({counters + COUNTERS.index(name)}, {amount});"

        body: list[str] = []
        if hook.start is not None:
            body += self._pair_start(hook, renderer, count)
        elif hook.after is not None:
            body += self._pair_end(hook, renderer, count)
        body.append(count("hits"))
        for block in hook.blocks:
            action = self._action(block.action, renderer, count)
            if block.condition is not None:
                action = [f"if ({renderer.integer(block.condition)[0]}) {{", *action, "}"]
            body += action
        if hook.after is not None:
            body.append(f"pair_{hook.after.index}.delete(&key);")
        self.has_stacks |= "stack" in renderer.uses
        opening = [line for name, line in OPENING.items() if name in renderer.uses]
        if sum(line.count(renderer.stack) for line in body) > 1:  # a walk is long, and one a hit is enough
            body = [f"u64 stack = {renderer.stack};", *(line.replace(renderer.stack, "stack") for line in body)]
        self.functions.append(
            "\n".join([f"int {hook.function}(struct pt_regs *ctx) {{", *opening, *body, "return 0;", "}"])
        )

    def _pair_key(self, hook: Hook) -> list[str]:
        """Statements that set `key`: this thread and probe and, for functions, the stack frame of the call.

        The frame tells the calls of a recursion apart, and a call that never returned (longjmp, a thread's end) is
        overwritten by the next one in its place instead of shifting all later matches.
        """
        if hook.kind == "usdt":
            return ["struct pair_key key = { .thread = (u32)id };"]
        slot = RETURN_SLOT[hook.machine] if hook.kind == "return" else 0
        return [
            f"u64 caller = (u32)id | (cookie >> {COOKIE_LIST_BITS} << 32);",
            f"struct pair_key key = {{ .thread = caller, .frame = ctx->sp - {slot} }};",
        ]

    def _pair_start(self, hook: Hook, renderer: Renderer, count: Counter) -> list[str]:
        assert hook.start is not None
        fields = [renderer.field(name, expression) for name, expression in hook.start.items()]
        layout = self.kept[hook.index] = Layout(fields, header=(("start", "u64"),))
        name = f"pair_{hook.index}"
        entries = max(64, min(PAIR_ENTRIES, PAIR_BYTES // layout.size))
        self.declarations += [
            layout.c_struct(name),
            f"BPF_HASH({name}, struct pair_key, struct {name}, {entries});",
            f"BPF_ARRAY(blank_{hook.index}, struct {name}, 1);",
        ]
        renderer.uses |= {"id", "cookie", "now"}
        lines = self._pair_key(hook)
        if hook.kind == "usdt":
            self.declarations.append(f"BPF_HASH(depth_{hook.index}, u32, u32, {PAIR_ENTRIES});")
            lines += [
                f"u32 thread = id, *depth = depth_{hook.index}.lookup(&thread), first = 1;",
                f"if (depth && *depth >= {MAX_NESTING}) {{ {count('overflow', MAX_NESTING)} *depth = 0; }}",
                "if (depth) { key.frame = *depth; *depth += 1; }",
                f"else if (depth_{hook.index}.update(&thread, &first)) {{ {count('full')} return 0; }}",
            ]
        lines += [
            "u32 zero = 0;",
            f"struct {name} *blank = blank_{hook.index}.lookup(&zero);",
            f"if (!blank || {name}.update(&key, blank)) {{ {count('full')} return 0; }}",
            f"struct {name} *s = {name}.lookup(&key);",
            "if (!s) return 0;",
        ]
        for index, (expression, kept) in enumerate(zip(hook.start.values(), layout.fields, strict=True)):
            lines += renderer.store(expression, f"s->f{index}", kept.room if kept.is_text else 8)
        return [*lines, "s->start = bpf_ktime_get_ns();"]

    def _pair_end(self, hook: Hook, renderer: Renderer, count: Counter) -> list[str]:
        assert hook.after is not None
        first = hook.after.index
        renderer.uses |= {"id", "cookie", "now"}
        lines = self._pair_key(hook)
        if hook.kind == "usdt":
            lines += [
                f"u32 thread = id, *depth = depth_{first}.lookup(&thread);",
                f"if (!depth || !*depth) {{ {count('unmatched')} return 0; }}",
                "*depth -= 1;",
                "key.frame = *depth;",
                f"if (!*depth) depth_{first}.delete(&thread);",
            ]
        return [
            *lines,
            f"struct pair_{first} *s = pair_{first}.lookup(&key);",
            f"if (!s) {{ {count('unmatched')} return 0; }}",
            "u64 latency = now - s->start;",
        ]

    def _action(self, action: Action, renderer: Renderer, count: Counter) -> list[str]:
        match action:
            case Emit(number, fields):
                return self._emit(number, fields, renderer, count)
            case Count(number, keys):
                return self._count(number, keys, renderer, count)
            case Hist(number, value, keys):
                return self._hist(number, value, keys, renderer, count)

    def _emit(self, number: int, fields: dict[str, ex.Expression], renderer: Renderer, count: Counter) -> list[str]:
        layout = Layout([renderer.field(name, value) for name, value in fields.items()], RECORD_HEADER)
        if layout.size > MAX_RECORD:
            raise UsageError(
                f"{renderer.scope.what}: an event of {layout.size} bytes",
                hint=f"at most {MAX_RECORD}: shorten its strings",
            )
        self.records[number] = layout
        self.declarations.append(layout.c_struct(f"record_{number}"))
        renderer.uses |= {"id", "cookie", "now"}
        lines = [
            f"struct record_{number} *r = events.ringbuf_reserve(sizeof(struct record_{number}));",
            f"if (!r) {{ {count('lost')} }} else {{",
            f"r->kind = {number}; r->probe = cookie >> {COOKIE_LIST_BITS};",
            "r->time = now; r->pid = id >> 32; r->tid = id;",
        ]
        for index, (expression, target) in enumerate(zip(fields.values(), layout.fields, strict=True)):
            lines += renderer.store(expression, f"r->f{index}", target.room if target.is_text else 8)
        return ["{", *lines, "events.ringbuf_submit(r, 0);", "}", "}"]

    def _key(
        self, name: str, keys: dict[str, ex.Expression], extra: Sequence[Field], renderer: Renderer
    ) -> tuple[Layout, list[str]]:
        layout = Layout([*(renderer.field(key, value) for key, value in keys.items()), *extra])
        if layout.size > MAX_KEY:
            raise UsageError(
                f"{renderer.scope.what}: keys of {layout.size} bytes together",
                hint=f"at most {MAX_KEY}: cstr(…, 64) shortens a string",
            )
        self.declarations.append(layout.c_struct(name))
        lines = [f"struct {name} key = {{}};"]
        for index, (expression, part) in enumerate(zip(keys.values(), layout.fields, strict=False)):
            lines += renderer.store(expression, f"key.f{index}", part.room if part.is_text else 8)
        return layout, lines

    def _count(self, number: int, keys: dict[str, ex.Expression], renderer: Renderer, count: Counter) -> list[str]:
        name = table_name(number)
        if not keys:
            self.tables[number] = Table(Layout([]))
            self.declarations.append(f"BPF_PERCPU_ARRAY({name}, u64, 1);")
            return _add_to_slot(name, "0", "1")
        layout, lines = self._key(f"{name}_key", keys, (), renderer)
        self.tables[number] = Table(layout)
        self.declarations.append(f"BPF_HASH({name}, struct {name}_key, u64, {AGGREGATION_ENTRIES});")
        return ["{", *lines, *_add_to_key(name, "1", count("full")), "}"]

    def _hist(
        self, number: int, value: ex.Expression, keys: dict[str, ex.Expression], renderer: Renderer, count: Counter
    ) -> list[str]:
        name = table_name(number)
        measured, signed = renderer.integer(value)
        opening = ["{", f"u64 value = {measured};"]
        if not keys:
            self.tables[number] = Table(Layout([]), signed)
            self.declarations.append(f"BPF_PERCPU_ARRAY({name}, u64, {HISTOGRAM_SUM + 1});")
            slots = _add_to_slot(name, "bits(value)", "1") + _add_to_slot(name, str(HISTOGRAM_SUM), "value")
            return [*opening, *slots, "}"]
        layout, lines = self._key(f"{name}_key", keys, [Field("bucket", "u64")], renderer)
        self.tables[number] = Table(layout, signed)
        self.declarations.append(f"BPF_HASH({name}, struct {name}_key, u64, {AGGREGATION_ENTRIES});")
        slot, full = f"key.f{len(keys)}", count("full")
        # What has no bucket does not go into the sum either, so that the average stays right.
        add_to_sum = [f"{slot} = {HISTOGRAM_SUM};", *_add_to_key(name, "value", full)]
        return [*opening, *lines, f"{slot} = bits(value);", *_add_to_key(name, "1", full, add_to_sum), "}"]


# bcc does not see its map functions inside macros, so these are spelled out at each place.


def _add_to_slot(table: str, slot: str, amount: str) -> list[str]:
    return [
        f"{{ u32 at = {slot}; u64 *sum = {table}.lookup(&at);",
        f"if (sum) __sync_fetch_and_add(sum, {amount}); }}",
    ]


def _add_to_key(table: str, amount: str, when_full: str, then: Sequence[str] = ()) -> list[str]:
    return [
        f"{{ u64 none = 0, *sum = {table}.lookup(&key);",
        f"if (!sum) {{ {table}.insert(&key, &none); sum = {table}.lookup(&key); }}",
        f"if (!sum) {{ {when_full} }} else {{ __sync_fetch_and_add(sum, {amount});",
        *then,
        "} }",
    ]


PRELUDE = (Path(__file__).parent / "prelude.c").read_text()
STACKS = (Path(__file__).parent / "stacks.c").read_text()

# Computed once a hit, where a hook uses it.
OPENING = {
    "cookie": "u64 cookie = bpf_get_attach_cookie(ctx);",
    "layout": f"u32 layout = (bpf_get_attach_cookie(ctx) & {MAX_LISTS - 1}) * {MAX_OPERANDS};",
    "id": "u64 id = bpf_get_current_pid_tgid();",
    "now": "u64 now = bpf_ktime_get_ns();",
}
