"""How a start and its end find each other → statements of their hooks, and the program that clears up after threads.

Input: the two hooks of a pair, from `program`. Output: C that stores what the start keeps and finds it again, for
`program`, which puts the actions behind it.

A call of a function and its return meet by the process and the stack frame ("frame"). The stack pointer at a function's
first instruction is that at its exits, so recursion comes out right, and so do coroutines, which may return in another
thread than they were called in. A call that is left in another way (an exception, longjmp, a cancelled thread) stays in
the table until a call of the same function has the same frame, or until the table forgets what was longest unused;
`trace.plan` finds out how many there were. Go moves its stacks, but the distance from a stack's end stays the same:
there the frame is that distance, of a goroutine.

Other starts and ends meet by thread: each thread has a stack of open starts, which nest by depth alone. The end of a
thread, and exec, drop what it had open, at that moment and in the kernel, so that a thread that gets its number later
finds nothing.

With a key, a start waits for the end of the same value in the same process, in whatever thread. Keys cannot be
enumerated, but they carry the moment at which the process was first seen, so that they match no later process, and a
table that forgets what was longest unused makes room.
"""

from __future__ import annotations

from typing import Literal

from usdtkit.bpf import expressions as ex
from usdtkit.bpf.layout import Layout
from usdtkit.bpf.render import EXIT_BIT, EXIT_CONDITION, EXIT_IS_BRANCH, EXIT_IS_SHARED, FUNCTION_NUMBER, Renderer
from usdtkit.bpf.statements import Counter
from usdtkit.records import dataclass, field

Matching = Literal["frame", "nesting", "key"]
# What pairs keep by key, and on older kernels all that they keep, is allocated in advance.
PAIR_ENTRIES, PAIR_BYTES = 10_240, 4 << 20
KEY_ENTRIES, KEY_BYTES = 65_536, 8 << 20
PROCESSES = 4096
NESTING, MOST_NESTING = 32, PAIR_ENTRIES
FEW_NESTED, MOST_DROPPED = 64, 1024  # at the end of a thread, by how deep its probes may nest
LARGEST_ON_STACK = 256  # bytes of what a call keeps that are put together on the program's stack, which has 512
TRACEPOINTS = (("thread_ends", "sched_process_exit"), ("thread_execs", "sched_process_exec"))

# `thread` is the one that called, `back` where the call will return to, where that has to be compared.
HEADERS: dict[Matching, tuple[tuple[str, str], ...]] = {
    "frame": (("start", "u64"), ("thread", "u64"), ("back", "u64")),
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
        self._declare(number, matching, layout, FEW_NESTED if nesting <= FEW_NESTED else MOST_DROPPED, renderer, count)
        renderer.uses |= {"id", "cookie"}
        stores: list[str] = []
        for index, (expression, kept) in enumerate(zip(keep.values(), layout.fields, strict=True)):
            stores += renderer.store(expression, f"s->f{index}", kept.room)
        if matching == "frame":
            return self._enter(number, layout, stores, renderer, count)
        renderer.uses.add("now")
        if key is not None:
            opening = self._start_by_key(number, renderer.integer(key)[0], count)
        else:
            opening = self._start_by_depth(number, renderer.parameter(nesting), count)
        name = f"pair_{number}"
        return [
            *opening,
            f"struct {name} *s = 0;",
            *_insert_blank(number, count),
            *stores,
            "s->start = bpf_ktime_get_ns();",
        ]

    def _enter(self, number: int, layout: Layout, stores: list[str], renderer: Renderer, count: Counter) -> list[str]:
        """Statements of a call's start. One of the same frame that is still there was left, and is replaced."""
        name = f"pair_{number}"
        back = f"s->back = cookie & {EXIT_IS_SHARED} ? {renderer.return_address()} : 0;"
        opening = [*_call_key(renderer), f"struct {name} *s = 0;"]
        if _fits_stack(layout):
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
            *("if (!s) {", *_insert_blank(number, count), "}"),
            f"s->thread = (u32)id; {back}",
            *stores,
            "s->start = bpf_ktime_get_ns();",
        ]

    def leave(self, number: int, renderer: Renderer, count: Counter) -> list[str]:
        """Statements that find the call that ends here, as `s`, or end the hook where there is none.

        An exit that other functions run through as well is one of theirs then, which is normal and not counted.
        """
        renderer.uses |= {"id", "cookie"}
        return [
            *_not_taken(renderer),
            *_call_key(renderer),
            f"struct pair_{number} *s = pair_{number}.lookup(&key);",
            f"if (!s && !(cookie & {EXIT_IS_SHARED})) {count('unmatched')}",
            "if (!s) return 0;",
            f"if (cookie & {EXIT_IS_SHARED} && is_another(s->back, {renderer.returned_to()})) return 0;",
        ]

    def guard(self, number: int, renderer: Renderer, count: Counter) -> list[str]:
        """Statements of a return that is no end of a call's pair: they let through only what was entered."""
        return ["{", *self.leave(number, renderer, count), f"pair_{number}.delete(&key); }}"]

    def end(
        self, number: int, matching: Matching, key: ex.Expression | None, renderer: Renderer, count: Counter
    ) -> tuple[list[str], list[str]]:
        """Statements that find what the start kept, `s`, and `latency`; and those that come last of all."""
        renderer.uses |= {"id", "cookie", "now"}
        unmatched = f"{{ {count('unmatched')} return 0; }}"
        closing = [f"pair_{number}.delete(&key);"]
        if matching == "frame":
            opening = self.leave(number, renderer, count)
        elif key is not None:
            opening = [
                *_key_of_process(renderer.integer(key)[0]),
                f"struct process *p = processes_{number}.lookup(&process);",
                f"if (!p) {unmatched}",
                "key.since = p->since;",
                f"struct pair_{number} *s = pair_{number}.lookup(&key);",
                f"if (!s) {unmatched}",
            ]
            closing = [f"if (!pair_{number}.delete(&key)) __sync_fetch_and_add(&p->open, -1);"]
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

    def _declare(
        self, number: int, matching: Matching, layout: Layout, most: int, renderer: Renderer, count: Counter
    ) -> None:
        name = f"pair_{number}"
        self.declarations.append(layout.c_struct(name))
        if matching != "frame" or not _fits_stack(layout):
            self.declarations.append(f"BPF_ARRAY(blank_{number}, struct {name}, 1);")
        if matching == "key":
            entries = max(1024, min(KEY_ENTRIES, KEY_BYTES // layout.size))
            self.declarations += [
                f'BPF_TABLE("lru_hash", struct process_key, struct {name}, {name}, {entries});',
                f'BPF_TABLE("lru_hash", u32, struct process, processes_{number}, {PROCESSES});',
            ]
            self.at_process_end += [
                f"{{ struct process *p = processes_{number}.lookup(&process);",
                f"if (p) {{ if (p->open > 0) {_of(number, count('abandoned', 'p->open'))}",
                f"processes_{number}.delete(&process); }} }}",
            ]
            return
        entries = max(64, min(PAIR_ENTRIES, PAIR_BYTES // layout.size))
        if matching == "frame":
            key = _call_key_type(renderer)
            self.declarations.append(f'BPF_TABLE("lru_hash", {key}, struct {name}, {name}, {entries});')
            return
        self.declarations += [
            _hash(name, "struct pair_key", f"struct {name}", entries),
            # How many starts are open in a thread and, where there were too many once, how many have been.
            _hash(f"threads_{number}", "u32", "u64", PAIR_ENTRIES),
        ]
        self.at_thread_end += [
            f"{{ volatile u32 *depth = (u32 *)threads_{number}.lookup(&thread); if (depth) {{",
            "struct pair_key key = { .thread = thread }; u64 dropped = *depth;",
            # Neither the depth in a register nor a branch on what is dropped: the verifier would follow each value.
            f"for (u32 i = 0; i < {most} && i < (*depth | depth[1]); i++) {{",
            f"key.depth = i; dropped += (s64){name}.delete(&key) >> 63 & (s64)((u64)i - *depth) >> 63; }}",
            f"{_of(number, count('abandoned', 'dropped'))} threads_{number}.delete(&thread); }} }}",
        ]

    def _start_by_depth(self, number: int, most: str, count: Counter) -> list[str]:
        return [
            *_thread(number, count),
            # A start that is too deep opens a new stack: those that never end do not hide all that come.
            f"if (*depth >= {most}) {{ {count('overflow', '*depth')} depth[1] = *depth; *depth = 0; }}",
            "struct pair_key key = { .thread = thread, .depth = *depth };",
            "*depth += 1;",  # also where it is not stored: its end must not take the start before it
        ]

    def _start_by_key(self, number: int, value: str, count: Counter) -> list[str]:
        return [
            *_key_of_process(value),
            f"struct process *p = processes_{number}.lookup(&process), first = {{ .since = now }};",
            f"if (!p) {{ processes_{number}.insert(&process, &first); p = processes_{number}.lookup(&process); }}",
            f"if (!p) {{ {count('full')} return 0; }}",
            "key.since = p->since;",
            f"if (pair_{number}.lookup(&key)) {{ {count('abandoned')} }} else __sync_fetch_and_add(&p->open, 1);",
        ]


def caller_of(value: bytes) -> int:
    """The thread that made the call of an entry, in the table of a pair that meets by frame."""
    return int.from_bytes(value[8:16], "little")


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


def _insert_blank(number: int, count: Counter) -> list[str]:
    """Statements that make an entry of the key, without values yet, and set `s` to it."""
    name = f"pair_{number}"
    return [
        f"u32 zero = 0; struct {name} *blank = blank_{number}.lookup(&zero);",
        f"if (!blank || {name}.update(&key, blank)) {{ {count('full')} return 0; }}",
        f"s = {name}.lookup(&key);",
        "if (!s) return 0;",
    ]


def _fits_stack(layout: Layout) -> bool:
    """Whether what a call keeps is put together on the program's stack: one look at the table less."""
    return layout.size <= LARGEST_ON_STACK and not any(one.is_text for one in layout.fields)


def _not_taken(renderer: Renderer) -> list[str]:
    """Statements that end the hook at a conditional jump that goes on within the function."""
    if renderer.scope.machine != "x86_64":  # elsewhere such exits are not looked for
        return []
    taken = f"is_taken({renderer.register('flags')}, cookie & {EXIT_CONDITION})"
    return [f"if (cookie & {EXIT_IS_BRANCH} && !{taken}) return 0;"]


def _is_go(renderer: Renderer) -> bool:
    return renderer.scope.convention == "go"


def _call_key_type(renderer: Renderer) -> str:
    return "struct go_call_key" if _is_go(renderer) else "struct call_key"


def _call_key(renderer: Renderer) -> list[str]:
    """Statements that declare `key`: which call this is, of which process and function."""
    frame = renderer.register("sp")
    if renderer.scope.kind == "return" and (slot := renderer.scope.calls.return_slot):
        frame += f" - (cookie & {EXIT_BIT}u ? 0 : {slot})"  # a return has taken its address from the stack
    if _is_go(renderer):
        # A goroutine's descriptor begins with the bounds of its stack.
        routine = renderer.register(renderer.scope.calls.routine)
        frame, more = f"read_user({routine} + 8, 8, {renderer.stat}) - ({frame})", f", .routine = {routine}"
    else:
        more = ""
    owner = f"id >> 32 << 32 | {FUNCTION_NUMBER}"
    return [f"{_call_key_type(renderer)} key = {{ .owner = {owner}, .frame = {frame}{more} }};"]


def _key_of_process(value: str) -> list[str]:
    return ["u32 process = id >> 32;", f"struct process_key key = {{ .process = process, .value = {value} }};"]
