"""The program that walks stacks by tables of call frame information, joined to the bytecode of a session.

Input: unwind.c, and the bytecode of hooks that take stacks (stacks.c), which name its functions by their numbers.
Output: bytecode with its functions and maps, for `usdtkit.kernel.load`. It is translated apart from the hooks, and once
for all sessions, because it is the same in all.
"""

from __future__ import annotations

from usdtkit.bpf.abi import abi_of
from usdtkit.bpf.bytecode import Bytecode, joined
from usdtkit.bpf.compiler import translate_program
from usdtkit.bpf.sources import text_of

CALLBACKS = (
    *("walk_frame", "find_return", "begin_python", "find_python_thread", "python_frame"),
    *("begin_php", "php_frame", "begin_ruby", "find_ruby_thread", "ruby_frame"),
)
"""The functions that the kernel calls, by the numbers that stacks.c gives them."""

ROWS, INDEX, PROCESSES, INSTANCES = "unwind_rows", "unwind_index", "unwind_processes", "return_instances"
"""The maps that user space fills."""
PYTHON_LAYOUTS, RUBY_LAYOUTS, THREAD_POINTER = "python_layouts", "ruby_layouts", "thread_pointer"
"""Those by which Python's and Ruby's frames are found."""
PYTHON_CODES = "python_codes"
"""The ring with what functions are called."""
HASHES = (PROCESSES, "walks", "python_threads", "python_codes_sent")
"""Those whose sizes do not depend on what a session counts."""


def with_walker(bytecode: Bytecode) -> Bytecode:
    """The bytecode of hooks that take stacks, with what walks them."""
    texts = map(text_of, ("walk.h", "unwind.c", "pythonframes.c", "phpframes.c", "rubyframes.c"))
    text = "\n".join(["#include <uapi/linux/ptrace.h>", abi_of().stack_macros, *texts])
    return joined(bytecode, translate_program(text))
