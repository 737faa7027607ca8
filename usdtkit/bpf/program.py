"""Hooks with their actions → one BPF program as C text, with the layouts of everything that it sends or counts.

Input: `Hook`s, which `usdtkit.trace` makes from resolved probes and a user's expressions. Output: `Program`, for
`compiler`, `usdtkit.kernel.load` and the readers in `usdtkit.trace`. Equal hooks give equal text, on any host.

The text does not say where the arguments of a USDT probe lie, because that differs from site to site. Each site's
cookie (see `cookie`) names one of the lists of operands in the map `operands`, which the program reads. So text and
bytecode are the same for every build of the traced program.
"""

from __future__ import annotations

from collections.abc import Sequence

from usdtkit.bpf import calls, threadvalues
from usdtkit.bpf import expressions as ex
from usdtkit.bpf.abi import abi_of
from usdtkit.bpf.access import Access
from usdtkit.bpf.actions import Assign, Block, Fill
from usdtkit.bpf.cookie import MAX_LISTS
from usdtkit.bpf.interning import Interning
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.operands import MAX_OPERANDS
from usdtkit.bpf.pairs import NESTING, TRACEPOINTS, Matching, Pairs
from usdtkit.bpf.render import STORE_KEY, Renderer, store_name
from usdtkit.bpf.scope import Scope
from usdtkit.bpf.sources import text_of
from usdtkit.bpf.statements import BACK, SCRATCH, ActionRenderer, TableLayout
from usdtkit.model import Argument, HookKind, Tracepoint
from usdtkit.records import dataclass, field, replace

# The counters of each hook in the map `stats`. To add one, a name here is all that the program needs.
COUNTERS = ("hits", "lost", "full", "unmatched", "overflow", "abandoned", "unreadable", "no_stack")
COUNTERS_SIZE = 8 * 8  # of struct counters

STACK_RECORDS = "stack_records"  # the ring buffer of stacks.c


@dataclass
class Hook:
    """One function of the program, which runs at one kind of site.

    A pair is two hooks: `start` says what the first keeps, and the second (`after` the first) can read it. `matching`
    says how a start and its end find each other; for a match by key, `key` is the value. A return that does not end its
    function's pair has, in `entered`, the hook of the function's entry. Calls of other functions may leave by the same
    exits, and only a call that was entered counts. The first `ahead` blocks were added later, but run before the
    others. One that is `parted` shares its sites with hooks that each have the arguments of some of them. With
    `chosen`, only the hits for which it is true count as such. `build` says whether it `reads_goid`. What a start that
    `is_filled` keeps may come from hooks within the pair.
    """

    index: int
    what: str
    kind: HookKind
    machine: str
    arguments: tuple[Argument, ...]
    string_size: int = 256
    convention: str = ""
    goid_offset: int = 0
    start: dict[str, ex.Expression] | None = None
    after: Hook | None = None
    entered: Hook | None = None
    matching: Matching = "nesting"
    nesting: int = NESTING
    key: ex.Expression | None = None
    derived: dict[str, ex.Expression] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    ahead: int = 0
    parted: bool = False
    chosen: ex.Expression | None = None
    reads_goid: bool = False
    is_filled: bool = False

    @property
    def function(self) -> str:
        """The name of its function in the program."""
        return f"hook_{self.index}"

    @property
    def in_pair(self) -> bool:
        """Whether it is the start or the end of a pair."""
        return self.start is not None or self.after is not None

    @property
    def is_result(self) -> bool:
        """Whether its hits are results: not those that begin a pair, or only change what is kept of pairs and
        threads."""
        only_keeps = bool(self.blocks) and all(isinstance(block.action, (Assign, Fill)) for block in self.blocks)
        return self.start is None and not only_keeps

    @property
    def call(self) -> Hook | None:
        """The hook of the function's entry, if this one is of its return."""
        return (self.entered or self.after) if self.kind == "return" else None

    @property
    def counts_calls(self) -> bool:
        """Whether its hits are exactly those calls of `call` that have returned."""
        return self.call is not None and self.start is None and self.after in (None, self.call)


@dataclass(frozen=True)
class Program:
    """A program's text, and what is needed to load it and to read what it sends.

    - `parameters`: the values of its constants, by number
    - `globs`: the entries of the map GLOBS
    - `records`: the layouts of its events, by kind
    - `tables`: how to read its aggregations, by number
    - `scanners`: the entries of the map SCANNERS
    - `texts`: the layouts of the records that send interned texts, by kind
    - `reads`: the numbers of the threads' values that it reads, and does not only write
    - `has_stacks`: whether it defines stacks, through the map STACK_RECORDS
    - `tracepoints`: those of its functions that belong at tracepoints of the kernel
    """

    text: str
    parameters: tuple[int, ...]
    globs: tuple[bytes, ...]
    records: dict[int, Layout]
    tables: dict[int, TableLayout]
    scanners: tuple[bytes, ...]
    texts: tuple[Layout, ...]
    reads: frozenset[int]
    has_stacks: bool
    tracepoints: tuple[tuple[str, Tracepoint], ...]


def build(hooks: Sequence[Hook], stores: Sequence[Layout] = (), threads: Sequence[Layout] = ()) -> Program:
    """Render hooks, in the order of their `index`, into one program. `stores` are the values of the session's maps,
    `threads` those that it keeps of each thread.

    UsageError where a hook asks for something that does not exist at its probe.
    """
    return _Builder().build(hooks, stores, threads)


class _Builder:
    def __init__(self) -> None:
        self.functions: list[str] = []
        self.parameters: list[int] = []
        self.globs: list[bytes] = []
        self.texts = Interning()
        self.actions = ActionRenderer()
        self.reads: set[int] = set()
        self.pairs = Pairs()
        self.has_stacks = False
        self.asks_for_ancestors = False

    def build(self, hooks: Sequence[Hook], stores: Sequence[Layout], threads: Sequence[Layout]) -> Program:
        declarations = [STORE_KEY] if stores else []
        for number, layout in enumerate(stores):
            name = store_name(number)
            declarations += [layout.c_struct(name), f"BPF_HASH({name}, struct store_key, struct {name}, 64);"]
        for number, layout in enumerate(threads):
            declarations += threadvalues.declarations(number, layout)
            self.pairs.at_thread_end.append(threadvalues.forget(number))
        for hook in hooks:
            self._function(hook)
        parts = [abi_of(hooks[0].machine).stack_macros, STACKS] if self.has_stacks else []
        parts += [SCRATCH] if self.globs or self.actions.needs_scratch or self.texts.needs_scratch else []
        parts += [GLOB_MATCHING] if self.globs else []
        parts += [INTERNED, *self.texts.declarations()] if self.texts.scanners else []
        if self.has_stacks:
            self.pairs.at_exec.append("unwind_processes.delete(&process);")
            self.pairs.at_thread_end += [FORGET_WALKS, FORGET_MAPPINGS]
        tracepoints: tuple[tuple[str, Tracepoint], ...] = ()
        if self.pairs.at_thread_end or self.pairs.at_process_end:
            tracepoints += TRACEPOINTS
            self.functions += self.pairs.functions()
        if self.asks_for_ancestors or self.has_stacks:
            tracepoints += (FORKS,)
            parts += [TASK_SEEN, *([FORKED] if self.asks_for_ancestors else [])]
            at_fork = [KEEP_MAPPINGS] if self.has_stacks else []
            at_fork += [KEEP_PARENT] if self.asks_for_ancestors else []
            self.functions.append(AT_FORK.replace("ACTIONS", "\n".join(at_fork)))
        declarations += [*self.pairs.declarations, *self.actions.declarations]
        text = _numbered("\n".join([PRELUDE, *parts, *declarations, *self.functions, ""]))
        return Program(
            text,
            tuple(self.parameters),
            tuple(self.globs),
            self.actions.records,
            self.actions.tables,
            tuple(self.texts.scanners),
            tuple(self.texts.records),
            frozenset(self.reads),
            self.has_stacks,
            tracepoints,
        )

    def _function(self, hook: Hook) -> None:
        kept = self.pairs.kept[hook.after.index] if hook.after else None
        scope = Scope(hook.what, hook.kind, hook.machine, hook.arguments, kept, hook.string_size, hook.convention)
        # What a pair keeps has precedence over a value that is derived at its end.
        kept_names = {field.name for field in kept.fields} if kept else set()
        derived = {name: value for name, value in hook.derived.items() if name not in kept_names}
        scope = replace(scope, goid_offset=hook.goid_offset, derived=derived)
        access = Access(scope, _counter("unreadable"), _counter("no_stack"), self.parameters)
        renderer = Renderer(access, self.globs, self.texts)

        body: list[str] = []
        closing: list[str] = []
        if hook.entered is not None:
            body += calls.guard(hook.entered.index, access, _count)
        if hook.start is not None:
            body += self.pairs.start(
                *(hook.index, hook.matching, hook.start, hook.key, hook.nesting, renderer, _count),
                is_filled=hook.is_filled,
            )
        elif hook.after is not None:
            # The key cannot be one of the values that the start kept, because it is needed to find them.
            keys = Renderer(replace(access, scope=replace(scope, kept=None)), self.globs, self.texts)
            opening, closing = self.pairs.end(hook.after.index, hook.matching, hook.key, keys, _count)
            body += opening
        counting = [_count("hits")]
        if hook.is_result:
            access.uses |= {"cookie", "id"}
            counting.append("note_origin(cookie, id);")
        chosen = "" if hook.chosen is None else renderer.integer(hook.chosen)[0]
        body += [f"u64 chosen = {chosen};", "if (chosen) {", *counting, "}"] if chosen else counting
        actions = [self._block(block, renderer) for block in hook.blocks]
        # A walk of the stack takes long, so there is one for each hit: within the condition of the only action that
        # needs it, or before all actions where several do.
        asking = [lines for _, lines in actions if any(access.stack in line for line in lines)]
        if len(asking) == 1:
            asking[0][:] = ["{", *_walked_once(asking[0], access.stack), "}"]
        for condition, lines in actions:
            body += [f"if ({condition}) {{", *lines, "}"] if condition else lines
        body += closing
        access.uses |= {"id"} if access.threads else set()
        self.reads |= access.reads
        self.has_stacks |= "stack" in access.uses
        self.asks_for_ancestors |= "ancestor" in access.uses
        hook.reads_goid = "goid" in access.uses
        lines = [line for name, line in OPENING.items() if name in access.uses]
        lines += [f"u64 {variable} = ctx->{name};" for name, variable in access.registers.items()]
        lines += [line for number in sorted(access.threads) for line in threadvalues.look_up(number)]
        body = _walked_once(body, access.stack)
        # An operand that decides about an action is read in any case, so it is read once.
        deciding = [chosen, *(condition for condition, _ in actions)]
        for index, operand in access.operands.items():
            if any(operand in condition for condition in deciding) and sum(line.count(operand) for line in body) > 1:
                lines.append(f"u64 operand_{index} = {operand};")
                body = [line.replace(operand, f"operand_{index}") for line in body]
        self.functions.append(
            "\n".join(
                [
                    f"int {hook.function}(struct pt_regs *ctx) {{",
                    f"u32 hook = {hook.index}; struct counters *counters = stats.lookup(&hook);",
                    "if (!counters) return 0;",
                    *lines,
                    *body,
                    *("return 0;", "}"),
                ]
            )
        )

    def _block(self, block: Block, renderer: Renderer) -> tuple[str, list[str]]:
        if isinstance(block.action, Fill):
            lines = self.pairs.fill(block.action, renderer)
        else:
            lines = self.actions.render(block.action, renderer, _count)
        return "" if block.condition is None else renderer.integer(block.condition)[0], lines


def _counter(name: str) -> str:
    """The address of a counter of the hook that runs."""
    return f"&counters->n[{COUNTERS.index(name)}]"


def _count(name: str, amount: str = "1") -> str:
    return f"__sync_fetch_and_add({_counter(name)}, {amount});"


def _numbered(text: str) -> str:
    """The text with the number of the following line in each mark BACK, which stands behind a piece of a user's C."""
    if BACK not in text:
        return text
    lines = enumerate(text.split("\n"), 2)
    return "\n".join(line.replace("0", str(number), 1) if line == BACK else line for number, line in lines)


def _walked_once(lines: list[str], stack: str) -> list[str]:
    """The same statements with one walk of the stack where several ask for it; `stack` is the C of a walk."""
    if sum(line.count(stack) for line in lines) < 2:
        return lines
    return [f"u64 stack = {stack};", *(line.replace(stack, "stack") for line in lines)]


PRELUDE = text_of("prelude.c")
STACKS = f"{text_of('walk.h')}\n{text_of('stacks.c')}"
GLOB_MATCHING = text_of("globs.c")
INTERNED = text_of("interned.c")
FORKED = text_of("forks.c")
FORKS = ("process_forks", Tracepoint("sched", "sched_process_fork"))
TASK_PLACES = "task_places"
"""The map, which the session fills, that says where the kernel's structures have the number of a process, and how many
of its threads have not ended; 0 where that is not known."""
TASK_SEEN = f"""\
struct task_places {{ u64 tgid, signal, live; }};
BPF_ARRAY({TASK_PLACES}, struct task_places, 1);"""
AT_FORK = f"""\
int {FORKS[0]}(struct bpf_raw_tracepoint_args *ctx) {{
u32 zero = 0, child = 0, parent = bpf_get_current_pid_tgid() >> 32;
struct task_places *at = {TASK_PLACES}.lookup(&zero);
if (!at || !at->tgid) return 0;
bpf_probe_read_kernel(&child, 4, (void *)ctx->args[1] + at->tgid);
if (child == parent) return 0;
ACTIONS
return 0;
}}"""
"""The program at forks; a thread is no child."""
KEEP_PARENT = "parents.update(&child, &parent);"
FORGET_WALKS = """\
u64 walk = thread;
walks.delete(&walk);
walk |= 1ULL << 32;
walks.delete(&walk);"""
FORGET_MAPPINGS = f"""\
{{ u32 zero = 0, threads = thread != process;
u64 signal = 0;
struct task_places *at = {TASK_PLACES}.lookup(&zero);
if (at && at->live) {{
bpf_probe_read_kernel(&signal, 8, (void *)(bpf_get_current_task() + at->signal));
bpf_probe_read_kernel(&threads, 4, (void *)(signal + at->live));
}}
if (!threads) unwind_processes.delete(&process); }}"""
"""A process goes on when its first thread has ended, until the last one has."""
KEEP_MAPPINGS = """\
struct process_head *known = unwind_processes.lookup(&parent);
if (known) unwind_processes.update(&child, known); else unwind_processes.delete(&child);"""
"""A child has what its parent has mapped, and nothing of an earlier process with its number."""

# What is computed once for each hit, in hooks that use it.
OPENING = {
    "cookie": "u64 cookie = bpf_get_attach_cookie(ctx);",
    "layout": f"u32 layout = (bpf_get_attach_cookie(ctx) & {MAX_LISTS - 1}) * {MAX_OPERANDS};",
    "id": "u64 id = bpf_get_current_pid_tgid();",
    "now": "u64 now = bpf_ktime_get_ns();",
}
