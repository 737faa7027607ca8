"""How a start and its end find each other → statements of their hooks, and the program that clears up after threads.

Input: the two hooks of a pair, from `program`. Output: C that stores what the start keeps and finds it again, for
`program`, which puts the actions behind it.

Without a key they meet by thread: each thread has a stack of open starts. Starts and ends of a function are told apart
by its stack frame, so that recursion comes out right, and calls that were left without a return (longjmp, an exception)
are dropped when a call or return shows that they are over: the order of frames says so, to the kernel's own return
probes as to us. All else nests by depth alone. With a key, a start waits for the end of the same value in the same
process, in whatever thread.

The end of a thread, and exec, drop what it had open, at that moment and in the kernel: a thread that gets its number
later finds nothing. Keys are a process's; they cannot be enumerated, but they carry the moment at which the process was
first seen, so that they match no later process, and a table that forgets what was longest unused makes room.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.render import COOKIE_LIST_BITS, Renderer
from usdtkit.bpf.statements import Counter
from usdtkit.records import dataclass, field

Matching = Literal["frame", "nesting", "key"]
# What pairs keep by key, and on older kernels all that they keep, is allocated in advance.
PAIR_ENTRIES, PAIR_BYTES = 10_240, 4 << 20
KEY_ENTRIES, KEY_BYTES = 65_536, 8 << 20
PROCESSES = 4096
NESTING, MOST_NESTING = 32, PAIR_ENTRIES
MAX_CALLS = 64  # the kernel follows as many pending returns of a thread
MOST_DROPPED = 1024  # at the end of a thread whose probes may nest deeper
MAX_DROPPED = 8  # at one hit, for the verifier goes through all of them
TRACEPOINTS = (("thread_ends", "sched_process_exit"), ("thread_execs", "sched_process_exec"))

# Of a call and the one that is hit: 1 where they are of different functions, else 0.
OTHER = "(((s->function ^ function) | -(s->function ^ function)) >> 63)"

HEADERS: dict[Matching, tuple[tuple[str, str], ...]] = {
    "frame": (("start", "u64"), ("frame", "u64"), ("function", "u64")),
    "nesting": (("start", "u64"),),
    "key": (("start", "u64"),),
}


@dataclass
class Pairs:
    """The pairs of a program: declarations, layouts of what they keep by number, and what the end of a thread does."""

    declarations: list[str] = field(default_factory=list)
    kept: dict[int, Layout] = field(default_factory=dict)
    at_thread_end: list[str] = field(default_factory=list)
    at_process_end: list[str] = field(default_factory=list)

    def start(
        self,
        number: int,
        matching: Matching,
        keep: dict[str, ex.Expression],
        key: ex.Expression | None,
        nesting: int,
        renderer: Renderer,
        count: Counter,
    ) -> list[str]:
        """Statements of a pair's start: what it keeps is in `s` then."""
        fields = [renderer.field(name, expression) for name, expression in keep.items()]
        layout = self.kept[number] = Layout(fields, HEADERS[matching])
        self._declare(number, matching, layout, MAX_CALLS if nesting <= MAX_CALLS else MOST_DROPPED, count)
        renderer.uses |= {"id", "cookie", "now"}
        if key is not None:
            opening = self._start_by_key(number, renderer.integer(key)[0], count)
        elif matching == "frame":
            opening = self._start_by_frame(number, renderer, count)
        else:
            opening = self._start_by_depth(number, renderer.parameter(nesting), count)
        name = f"pair_{number}"
        lines = [
            *opening,
            "u32 zero = 0;",
            f"struct {name} *blank = blank_{number}.lookup(&zero);",
            f"if (!blank || {name}.update(&key, blank)) {{ {count('full')} return 0; }}",
            f"struct {name} *s = {name}.lookup(&key);",
            "if (!s) return 0;",
        ]
        if matching == "frame":
            lines.append("s->frame = frame; s->function = function; *depth += 1;")
        for index, (expression, kept) in enumerate(zip(keep.values(), layout.fields, strict=True)):
            lines += renderer.store(expression, f"s->f{index}", kept.room)
        return [*lines, "s->start = bpf_ktime_get_ns();"]

    def end(
        self, number: int, matching: Matching, key: ex.Expression | None, renderer: Renderer, count: Counter
    ) -> tuple[list[str], list[str]]:
        """Statements that find what the start kept, `s`, and `latency`; and those that come last of all."""
        renderer.uses |= {"id", "cookie", "now"}
        unmatched = f"{{ {count('unmatched')} return 0; }}"
        if key is not None:
            opening = [
                *_key_of_process(renderer.integer(key)[0]),
                f"struct process *p = processes_{number}.lookup(&process);",
                f"if (!p) {unmatched}",
                "key.since = p->since;",
                f"struct pair_{number} *s = pair_{number}.lookup(&key);",
                f"if (!s) {unmatched}",
            ]
            closing = [f"if (!pair_{number}.delete(&key)) __sync_fetch_and_add(&p->open, -1);"]
        elif matching == "frame":
            opening = [
                _frame(renderer),
                f"u32 thread = id; volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread);",
                f"if (!depth) {unmatched}",
                f"struct pair_key key = {{ .thread = thread }}; struct pair_{number} *s = 0;",
                *_drop_ended(number, f"1 - {OTHER}", count),
                f"if (!s || s->frame != frame || s->function != function) {unmatched}",
                "*depth -= 1;",
                f"if (!*depth && !depth[1]) threads_{number}.delete(&thread);",
            ]
            closing = [f"pair_{number}.delete(&key);"]
        else:
            opening = [
                f"u32 thread = id, *depth = (u32 *)threads_{number}.lookup(&thread);",
                f"if (!depth || !*depth) {unmatched}",
                "*depth -= 1;",
                "struct pair_key key = { .thread = thread, .depth = *depth };",
                f"if (!*depth && !depth[1]) threads_{number}.delete(&thread);",
                f"struct pair_{number} *s = pair_{number}.lookup(&key);",
                f"if (!s) {unmatched}",
            ]
            closing = [f"pair_{number}.delete(&key);"]
        return [*opening, "u64 latency = now - s->start;"], closing

    def functions(self) -> list[str]:
        """The programs of TRACEPOINTS."""
        thread, process = self.at_thread_end, self.at_process_end
        return [
            "\n".join(
                [
                    "int thread_ends(struct bpf_raw_tracepoint_args *ctx) {",
                    "u64 id = bpf_get_current_pid_tgid();",
                    "u32 thread = id, process = id >> 32;",
                    *thread,
                    *(["if (thread == process) {", *process, "}"] if process else []),
                    *("return 0;", "}"),
                ]
            ),
            # Of several threads the one that execs goes on under the number of the first, which has ended by then.
            "\n".join(
                [
                    "int thread_execs(struct bpf_raw_tracepoint_args *ctx) {",
                    "u32 thread = ctx->args[1], process = bpf_get_current_pid_tgid() >> 32;",
                    *thread,
                    *process,
                    *("return 0;", "}"),
                ]
            ),
        ]

    def _declare(self, number: int, matching: Matching, layout: Layout, most: int, count: Counter) -> None:
        name = f"pair_{number}"
        self.declarations += [layout.c_struct(name), f"BPF_ARRAY(blank_{number}, struct {name}, 1);"]
        if matching == "key":
            entries = max(1024, min(KEY_ENTRIES, KEY_BYTES // layout.size))
            self.declarations += [
                f'BPF_TABLE("lru_hash", struct process_key, struct {name}, {name}, {entries});',
                f'BPF_TABLE("lru_hash", u32, struct process, processes_{number}, {PROCESSES});',
            ]
            self.at_process_end += [
                f"{{ struct process *p = processes_{number}.lookup(&process);",
                f"if (p) {{ if (p->open > 0) {_of(number, count('dropped', 'p->open'))}",
                f"processes_{number}.delete(&process); }} }}",
            ]
            return
        entries = max(64, min(PAIR_ENTRIES, PAIR_BYTES // layout.size))
        self.declarations += [
            _hash(name, "struct pair_key", f"struct {name}", entries),
            # How many starts are open in a thread and, where there were too many once, how many have been.
            _hash(f"threads_{number}", "u32", "u64", PAIR_ENTRIES),
        ]
        if matching == "frame":
            # Without a branch, for the verifier goes through all of it at every start.
            self.at_thread_end += [
                f"if (threads_{number}.lookup(&thread)) {{",
                f"struct pair_key key = {{ .thread = thread }}; u64 dropped = {MAX_CALLS};",
                '_Pragma("clang loop unroll(disable)")',
                f"for (u32 i = 0; i < {MAX_CALLS}; i++) {{",
                f"key.depth = i; dropped += (s64){name}.delete(&key) >> 63; }}",
                f"{_of(number, count('dropped', 'dropped'))} threads_{number}.delete(&thread); }}",
            ]
            return
        self.at_thread_end += [
            f"{{ volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread); if (depth) {{",
            "struct pair_key key = { .thread = thread }; u64 dropped = *depth;",
            # Neither the depth in a register nor a branch on what is dropped: the verifier would follow each value.
            f"for (u32 i = 0; i < {most} && i < (*depth | depth[1]); i++) {{",
            f"key.depth = i; dropped += (s64){name}.delete(&key) >> 63 & (s64)((u64)i - *depth) >> 63; }}",
            f"{_of(number, count('dropped', 'dropped'))} threads_{number}.delete(&thread); }} }}",
        ]

    def _start_by_depth(self, number: int, most: str, count: Counter) -> list[str]:
        return [
            *_thread(number, count),
            # A start that is too deep opens a new stack: those that never end do not hide all that come.
            f"if (*depth >= {most}) {{ {count('overflow', '*depth')} depth[1] = *depth; *depth = 0; }}",
            "struct pair_key key = { .thread = thread, .depth = *depth };",
            "*depth += 1;",  # also where it is not stored: its end must not take the start before it
        ]

    def _start_by_frame(self, number: int, renderer: Renderer, count: Counter) -> list[str]:
        return [
            _frame(renderer),
            *_thread(number, count),
            f"struct pair_key key = {{ .thread = thread }}; {{ struct pair_{number} *s = 0;",
            # In one frame there may be two calls: a function that ends by calling another leaves it its own.
            *_drop_ended(number, OTHER, count),
            "}",
            "key.depth = *depth;",
            f"if (key.depth >= {MAX_CALLS}) {{ {count('overflow')} return 0; }}",
        ]

    def _start_by_key(self, number: int, value: str, count: Counter) -> list[str]:
        return [
            *_key_of_process(value),
            f"struct process *p = processes_{number}.lookup(&process), first = {{ .since = now }};",
            f"if (!p) {{ processes_{number}.insert(&process, &first); p = processes_{number}.lookup(&process); }}",
            f"if (!p) {{ {count('full')} return 0; }}",
            "key.since = p->since;",
            f"if (pair_{number}.lookup(&key)) {{ {count('dropped')} }} else __sync_fetch_and_add(&p->open, 1);",
        ]


def _hash(name: str, key: str, value: str, entries: int) -> str:
    # Making room for all of them would take as long as loading the programs.
    return f'BPF_F_TABLE("hash", {key}, {value}, {name}, {entries}, BPF_F_NO_PREALLOC);'


def _of(hook: int, statement: str) -> str:
    """A statement that counts for a hook, in a program that is none."""
    return f"{{ u32 hook = {hook}; struct counters *counters = stats.lookup(&hook); if (counters) {statement} }}"


def _thread(number: int, count: Counter) -> list[str]:
    return [
        f"u64 none = 0; u32 thread = id; volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread);",
        f"if (!depth) {{ threads_{number}.insert(&thread, &none); depth = (u32 *)threads_{number}.lookup(&thread); }}",
        f"if (!depth) {{ {count('full')} return 0; }}",
    ]


def _frame(renderer: Renderer) -> str:
    """Which call this is: its frame, and of several functions the number."""
    slot = renderer.scope.calls.return_slot if renderer.scope.kind == "return" else 0
    return f"u64 frame = {renderer.register('sp')} - {slot}, function = cookie >> {COOKIE_LIST_BITS};"


def _drop_ended(number: int, same_frame: str, count: Counter) -> list[str]:
    """Drop the innermost open calls until one is live, which is `s` then: of an outer frame, or of the same one where
    `same_frame` is 1.

    How many are left is read from the map each time: of a number in a register the verifier would follow every value.
    Not unrolled and with as few branches as can be, because that is what a start of the session spends its time on.
    """
    name = f"pair_{number}"
    return [
        '_Pragma("clang loop unroll(disable)")',
        f"for (u64 i = 0; i < {MAX_DROPPED}; i++) {{",
        "u64 open = *depth; if (!open) break;",
        f"key.depth = open - 1; s = {name}.lookup(&key);",
        f"if (!s || (s64)((s->frame - frame) * 2 + {same_frame}) > 0) break;",
        f"*depth = open - 1; {name}.delete(&key); {count('dropped')} s = 0;",
        "}",
    ]


def _key_of_process(value: str) -> list[str]:
    return ["u32 process = id >> 32;", f"struct process_key key = {{ .process = process, .value = {value} }};"]
