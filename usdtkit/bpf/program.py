"""Hooks with their actions → one BPF program as C text, with the layouts of everything it sends or counts.

Input: `Hook`s, made by `trace` from resolved probes and a user's expressions. Output: `Program`, for `compiler`,
`loader` and the readers in `trace`. Deterministic and pure: equal hooks give equal text, on any host.

How a program reads a USDT argument: the sites of a probe differ in where an argument lies, so the text does not say.
Each site's cookie (see `cookie`) names the probe and one of the lists of operands in the map `operands`. So text and
bytecode are the same for every build of the traced program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.actions import COOKIE_LIST_BITS, ActionRenderer, Block, Counter, Table
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.render import MAX_OPERANDS, RETURN_SLOT, HookKind, Renderer, Scope
from usdtkit.errors import UsageError
from usdtkit.model import Argument

# Each hook's counters in the map `stats`; one more line here needs no other change in the kernel's part.
COUNTERS = ("hits", "lost", "full", "unmatched", "overflow", "unreadable")
COUNTERS_ROOM = 8

MAX_LISTS = 1 << COOKIE_LIST_BITS
MAX_PROBES = 1 << 32 - COOKIE_LIST_BITS
# What pairs keep is allocated in advance.
PAIR_ENTRIES, PAIR_BYTES = 10_240, 4 << 20
MAX_NESTING = 32


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
class Program:
    """The text, the values of its parameters, and by their numbers the layouts of events, and the tables."""

    text: str
    parameters: tuple[int, ...]
    records: dict[int, Layout]
    tables: dict[int, Table]


def build(hooks: Sequence[Hook]) -> Program:
    """Render hooks, in the order of their `index`, into one program."""
    return _Builder().build(hooks)


def cookie(probe: int, operand_list: int) -> int:
    """A site's cookie: the number of its probe, and of its list in the map `operands`."""
    if probe >= MAX_PROBES or operand_list >= MAX_LISTS:
        raise UsageError(
            f"more than {MAX_PROBES} probes, or {MAX_LISTS} different argument layouts, in one session",
            hint="narrow the pattern, or trace in several sessions",
        )
    return probe << COOKIE_LIST_BITS | operand_list


class _Builder:
    def __init__(self) -> None:
        self.declarations: list[str] = []
        self.functions: list[str] = []
        self.parameters: list[int] = []
        self.actions = ActionRenderer()
        self.kept: dict[int, Layout] = {}

    def build(self, hooks: Sequence[Hook]) -> Program:
        for hook in hooks:
            self._function(hook)
        text = "\n".join([PRELUDE, *self.declarations, *self.actions.declarations, *self.functions, ""])
        return Program(text, tuple(self.parameters), self.actions.records, self.actions.tables)

    def _function(self, hook: Hook) -> None:
        kept = self.kept[hook.after.index] if hook.after else None
        scope = Scope(hook.what, hook.kind, hook.machine, hook.arguments, kept, hook.string_size)
        counters = hook.index * COUNTERS_ROOM
        renderer = Renderer(scope, counters + COUNTERS.index("unreadable"), self.parameters)

        def count(name: str, amount: int = 1) -> str:
            return f"add({counters + COUNTERS.index(name)}, {amount});"

        body: list[str] = []
        if hook.start is not None:
            body += self._pair_start(hook, renderer, count)
        elif hook.after is not None:
            body += self._pair_end(hook, renderer, count)
        body.append(count("hits"))
        for block in hook.blocks:
            action = self.actions.render(block.action, renderer, count)
            if block.condition is not None:
                action = [f"if ({renderer.integer(block.condition)[0]}) {{", *action, "}"]
            body += action
        if hook.after is not None:
            body.append(f"pair_{hook.after.index}.delete(&key);")
        opening = [line for name, line in OPENING.items() if name in renderer.uses]
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


PRELUDE = (Path(__file__).parent / "prelude.c").read_text()

# Computed once a hit, where a hook uses it.
OPENING = {
    "cookie": "u64 cookie = bpf_get_attach_cookie(ctx);",
    "layout": f"u32 layout = (bpf_get_attach_cookie(ctx) & {MAX_LISTS - 1}) * {MAX_OPERANDS};",
    "id": "u64 id = bpf_get_current_pid_tgid();",
    "now": "u64 now = bpf_ktime_get_ns();",
}
