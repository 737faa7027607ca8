"""One action at one hook → C statements, and how to read the records and tables that they write.

Input: `actions`, and the `Renderer` of the hook. Output: statements and declarations for `program`, and layouts for the
readers in `usdtkit.trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from usdtkit.bpf import expressions as ex
from usdtkit.bpf import threadvalues
from usdtkit.bpf.actions import Assign, Count, Delete, Emit, Hist, Put, Raw, Stats
from usdtkit.bpf.cookie import PROBE_NUMBER
from usdtkit.bpf.layout import Field, Kind, Layout
from usdtkit.bpf.render import Renderer, store_key, store_name
from usdtkit.errors import UsageError
from usdtkit.records import dataclass

RECORD_HEADER = (("kind", "u32"), ("probe", "u32"), ("time", "u64"), ("pid", "u32"), ("tid", "u32"))
MAX_RECORD = 1 << 16
# An event of a type has one of up to SIZES sizes: each of its texts has one of these capacities, or all that it may
# need.
TEXT_CAPACITIES = (28, 124)
SIZES = len(TEXT_CAPACITIES) + 1
# Memory into which a string is read to find its length, and to bring in its pages. Threads that share a CPU may write
# to it at once, which does not matter: nobody reads it.
SCRATCH = f"struct scratch {{ char data[{ex.MAX_STRING + 8}]; }};\nBPF_PERCPU_ARRAY(scratches, struct scratch, 1);"
MAX_KEY = 256
AGGREGATION_ENTRIES = 10_240
# Of histograms by key, which have an entry for each bucket of each key that has values.
HISTOGRAM_ENTRIES = 65_536

# The mark behind a user's text, from which on the compiler counts the program's lines again; `program` fills in which.
BACK = '#line 0 "/virtual/main.c"'

Counter = Callable[..., str]
"""Renders the statement that raises a counter of the hook: its name, and by how much (1)."""
Result = Emit | Count | Hist | Stats | Raw | Put | Delete | Assign
"""The actions that stand for themselves; `pairs` renders what is done with an open pair."""


@dataclass(eq=False, repr=False)
class TableLayout:
    """How to read an aggregation: the layouts of its keys and values, and whether the values that it adds are
    signed."""

    keys: Layout
    signed: bool = False
    values: Layout | None = None


def table_name(number: int) -> str:
    """The name of an aggregation's map."""
    return f"table_{number}"


def interval_name(number: int) -> str:
    """The name of the map that holds the number of an aggregation's interval."""
    return f"interval_{number}"


def _in_ring(layout: Layout) -> int:
    """The bytes that a record takes in the ring: with the kernel's header, a multiple of 8."""
    return layout.size + 8 + 7 & ~7


class ActionRenderer:
    """Renders the actions of all hooks. Declarations, records and tables collect in its attributes."""

    def __init__(self) -> None:
        self.declarations: list[str] = []
        self.needs_scratch = False
        # By kind. An event of the type n has the kind n * SIZES or one of the SIZES - 1 behind it, by its size.
        self.records: dict[int, Layout] = {}
        self.tables: dict[int, TableLayout] = {}

    def render(self, action: Result, renderer: Renderer, count: Counter) -> list[str]:
        """The statements of an action. UsageError where its values cannot be had at this probe."""
        match action:
            case Emit(number, fields):
                return self._emit(number, fields, renderer, count)
            case Count():
                return self._count(action, renderer, count)
            case Hist():
                return self._hist(action, renderer, count)
            case Stats():
                return self._stats(action, renderer, count)
            case Raw():
                return self._raw(action, renderer, count)
            case Put(number, key, values):
                name, lines = store_name(number), []
                for index, value in enumerate(values):
                    lines += renderer.store(value, f"value.f{index}", 8)
                opening = ["{", store_key(renderer.integer(key)[0]), f"struct {name} value = {{}};"]
                renderer.access.uses.add("id")
                return [*opening, *lines, f"if ({name}.update(&at, &value)) {{ {count('full')} }} }}"]
            case Delete(number, key):
                renderer.access.uses.add("id")
                return ["{", store_key(renderer.integer(key)[0]), f"{store_name(number)}.delete(&at); }}"]
            case Assign():
                return threadvalues.assign(action, renderer, count("full"))

    def _emit(self, number: int, fields: dict[str, ex.Expression], renderer: Renderer, count: Counter) -> list[str]:
        described = [renderer.field(name, value) for name, value in fields.items()]
        if interned := [field.name for field in described if field.kind == "interned"]:
            raise UsageError(
                f"{renderer.access.scope.what}: {interned[0]} is interned, and only a key can be",
                hint="events carry their texts: leave out interned()",
            )
        full = Layout(described, RECORD_HEADER)
        if full.size > MAX_RECORD:
            raise UsageError(
                f"{renderer.access.scope.what}: an event of {full.size} bytes is too large",
                hint=f"at most {MAX_RECORD}: shorten its strings",
            )
        renderer.access.uses |= {"id", "cookie"}
        most = max((field.capacity for field in described if field.is_text), default=0)
        capacities = [capacity for capacity in TEXT_CAPACITIES if 2 * capacity <= most]
        if not capacities:
            return self._send(number * SIZES, full, fields, renderer, count)
        # The lengths of the texts decide how large the record is, so that no unused bytes go through the ring buffer.
        self.needs_scratch = True
        lines = [
            "{ u32 none = 0; s32 n, longest = 0;",
            "struct scratch *scratch = scratches.lookup(&none);",
            "if (scratch) {",
        ]
        for expression, field in zip(fields.values(), described, strict=True):
            if field.is_text:
                lines.append(f"n = {renderer.length(expression, 'scratch->data')}; if (n > longest) longest = n;")
        for index, capacity in enumerate(capacities):
            layout = Layout(described, RECORD_HEADER, longest=capacity)
            send = self._send(number * SIZES + index, layout, fields, renderer, count)
            lines += [f"if (longest <= {capacity}) {{", *send, "} else"]
        largest = self._send(number * SIZES + len(capacities), full, fields, renderer, count)
        return [*lines, "{", *largest, f"}} }} else {{ {count('lost')} }} }}"]

    def _send(
        self, kind: int, layout: Layout, fields: dict[str, ex.Expression], renderer: Renderer, count: Counter
    ) -> list[str]:
        self.records[kind] = layout
        self.declarations.append(layout.c_struct(f"record_{kind}"))
        lines = self._reserve(kind, "r", renderer, count)
        stored = zip(fields.values(), layout.capacities, layout.fields, strict=True)
        for index, (expression, capacity, field) in enumerate(stored):
            lines += renderer.store(expression, f"r->f{index}", capacity, field.optional)
        return ["{", *lines, f"events.ringbuf_submit(r, wake_up({_in_ring(layout)}));", "}", "}"]

    def _raw(self, action: Raw, renderer: Renderer, count: Counter) -> list[str]:
        kind = action.number * SIZES
        layout = self.records[kind] = Layout(action.fields, RECORD_HEADER)
        self.declarations.append(layout.c_struct(f"record_{kind}", named=True))
        if action.declarations:
            self.declarations += [f'#line 1 "{action.declarations_name}"', action.declarations, BACK]
        # In two steps, because a variable may have a name that another's value is computed from.
        variables = [renderer.variable(value) for value in action.values.values()]
        named = zip(action.values, variables, strict=True)
        return [
            "{",
            *(f"{type} value_{index} = {c};" for index, (type, c) in enumerate(variables)),
            *self._reserve(kind, "event", renderer, count),
            *("{", "__label__ drop, sent;", f"u64 *const unreadable = {renderer.access.unreadable};"),
            *(f"event->{field.name}{'_length' if field.is_text else ''} = 0;" for field in action.fields),
            "{",
            *(f"{type} {name} = value_{n};" for n, (name, (type, _)) in enumerate(named)),
            *(f'#line 1 "{action.body_name}"', action.text, BACK, "}"),
            *(
                f"events.ringbuf_submit(event, wake_up({_in_ring(layout)})); goto sent;",
                "drop: events.ringbuf_discard(event, 0);",
                "sent:;",
                "} } }",
            ),
        ]

    def _reserve(self, kind: int, name: str, renderer: Renderer, count: Counter) -> list[str]:
        renderer.access.uses |= {"id", "cookie"}
        return [
            f"struct record_{kind} *{name} = events.ringbuf_reserve(sizeof(struct record_{kind}));",
            f"if (!{name}) {{ {count('lost')} }} else {{",
            f"{name}->kind = {kind}; {name}->probe = {PROBE_NUMBER};",
            # The time is read after the reservation, on which the order that `usdtkit.trace.stream` makes depends.
            f"{name}->time = bpf_ktime_get_ns(); {name}->pid = id >> 32; {name}->tid = id;",
        ]

    def _key(
        self, name: str, keys: dict[str, ex.Expression], extra: Sequence[Field], renderer: Renderer
    ) -> tuple[Layout, list[str]]:
        layout = Layout([*(renderer.field(key, value) for key, value in keys.items()), *extra])
        if layout.size > MAX_KEY:
            raise UsageError(
                f"{renderer.access.scope.what}: keys of {layout.size} bytes in total are too large",
                hint=f"at most {MAX_KEY}: cstr(…, 64) shortens a string",
            )
        self.declarations.append(layout.c_struct(name))
        lines = [f"struct {name} key = {{}};"]
        for index, (expression, part) in enumerate(zip(keys.values(), layout.fields, strict=False)):
            lines += renderer.store(expression, f"key.f{index}", part.capacity, part.optional)
        return layout, lines

    def _count(self, action: Count, renderer: Renderer, count: Counter) -> list[str]:
        name, keys = table_name(action.number), action.keys
        amount, signed = ("1", False) if action.amount is None else renderer.integer(action.amount)
        if not keys:
            self.tables[action.number] = TableLayout(Layout([]), signed)
            self.declarations.append(f"BPF_PERCPU_ARRAY({name}, u64, 1);")
            return _add_to_slot(name, "0", amount)
        layout, lines = self._key(f"{name}_key", keys, (), renderer)
        self.tables[action.number] = TableLayout(layout, signed)
        self.declarations.append(f"BPF_HASH({name}, struct {name}_key, u64, {AGGREGATION_ENTRIES});")
        add = f"if (!sum) {{ {count('full')} }} else __sync_fetch_and_add(sum, amount);"
        return ["{", f"u64 amount = {amount}, none = 0;", *lines, *_find(name, "sum"), add, "}"]

    def _hist(self, action: Hist, renderer: Renderer, count: Counter) -> list[str]:
        name, scale = table_name(action.number), action.scale
        measured, signed = renderer.integer(action.value)
        opening = ["{", f"u64 value = {measured};"]
        bucket, sum_slot = scale.render("value", signed, renderer.access.parameter), scale.buckets
        if not action.keys:
            self.tables[action.number] = TableLayout(Layout([]), signed)
            self.declarations.append(f"BPF_PERCPU_ARRAY({name}, u64, {sum_slot + 1});")
            return [*opening, *_add_to_slot(name, bucket, "1"), *_add_to_slot(name, str(sum_slot), "value"), "}"]
        layout, lines = self._key(f"{name}_key", action.keys, [Field("bucket", "u64")], renderer)
        self.tables[action.number] = TableLayout(layout, signed)
        kind = f'"hash", struct {name}_key, u64, {name}, {HISTOGRAM_ENTRIES}'
        self.declarations.append(f"BPF_F_TABLE({kind}, BPF_F_NO_PREALLOC);")
        slot = f"key.f{len(action.keys)}"
        # A value is counted only where there is room for its bucket and for the sum, so that the average stays right.
        return [
            *(*opening, *lines, "u64 none = 0;"),
            *(f"{slot} = {bucket};", *_find(name, "found")),
            *(f"{slot} = {sum_slot};", *_find(name, "sum")),
            f"if (!found || !sum) {{ {count('full')} }} else {{",
            *("__sync_fetch_and_add(found, 1);", "__sync_fetch_and_add(sum, value);", "} }"),
        ]

    def _stats(self, action: Stats, renderer: Renderer, count: Counter) -> list[str]:
        name = table_name(action.number)
        measured, signed = renderer.integer(action.value)
        kind: Kind = "i64" if signed else "u64"
        values = Layout([Field("count", "u64"), Field("sum", kind), Field("minimum", kind), Field("maximum", kind)])
        self.declarations.append(values.c_struct(f"{name}_value"))
        # Each CPU has values of its own, so that the minimum and the maximum need no lock.
        if action.keys or action.anew:
            interval = [Field("interval", "u64")] if action.anew else []
            layout, lines = self._key(f"{name}_key", action.keys, interval, renderer)
            if action.anew:
                self.declarations.append(f"BPF_ARRAY({interval_name(action.number)}, u64, 1);")
                lines += [
                    f"u32 first = 0; u64 *interval = {interval_name(action.number)}.lookup(&first);",
                    f"if (interval) key.f{len(action.keys)} = *interval;",
                ]
            entries = AGGREGATION_ENTRIES
            self.declarations.append(f"BPF_PERCPU_HASH({name}, struct {name}_key, struct {name}_value, {entries});")
            make = (
                f"if (!v) {{ struct {name}_value none = {{}}; {name}.insert(&key, &none); v = {name}.lookup(&key); }}"
            )
        else:
            layout, lines = Layout([]), ["u32 key = 0;"]
            self.declarations.append(f"BPF_PERCPU_ARRAY({name}, struct {name}_value, 1);")
            make = ""
        self.tables[action.number] = TableLayout(layout, signed, values)
        return [
            *("{", f"{'s64' if signed else 'u64'} value = {measured};", *lines),
            *(f"struct {name}_value *v = {name}.lookup(&key);", make, f"if (!v) {{ {count('full')} }} else {{"),
            "if (!v->f0 || value < v->f2) v->f2 = value;",
            "if (!v->f0 || value > v->f3) v->f3 = value;",
            *("__sync_fetch_and_add(&v->f1, value);", "__sync_fetch_and_add(&v->f0, 1);", "} }"),
        ]


# bcc does not recognise its map functions within macros, so these statements are repeated at each place.


def _add_to_slot(table: str, slot: str, amount: str) -> list[str]:
    return [
        f"{{ u32 at = {slot}; u64 *sum = {table}.lookup(&at);",
        f"if (sum) __sync_fetch_and_add(sum, {amount}); }}",
    ]


def _find(table: str, variable: str) -> list[str]:
    return [
        f"u64 *{variable} = {table}.lookup(&key);",
        f"if (!{variable}) {{ {table}.insert(&key, &none); {variable} = {table}.lookup(&key); }}",
    ]
