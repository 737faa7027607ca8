"""C text → `Bytecode`: from the cache, from what was shipped, by `translator`, or by bcc in a child process.

Input: a whole program in bcc's C, which `program` writes. Output: bytecode, which `usdtkit.kernel.load` puts into the
kernel. A start whose program is in the cache reads one file. The translator knows all the C that `program` writes, and
needs nothing; bcc is asked for what it does not know, which is C of a user's own. No kernel headers are needed for
that either: the child (`_bcc_child.py`) uses those in headers/, so that the kernel's version and configuration do not
matter.
"""

# Every start imports this module, and importing pathlib takes long.
# ruff: noqa: PTH120, PTH123

from __future__ import annotations

import os
import re
import sys
from functools import cache

from usdtkit.bpf.bytecode import Bytecode, decode, encode
from usdtkit.cache import key_of, load, store
from usdtkit.errors import ProgramError, UnsupportedError, UsdtkitError

HEADERS = f"{os.path.dirname(__file__)}/headers"
CHILD = f"{os.path.dirname(__file__)}/_bcc_child.py"
BCC_HINT = (
    "install it: apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora); "
    "or compile elsewhere: usdtkit bundle"
)
FORMAT = 4  # to be raised when what the child or the translator gives, or `usdtkit.kernel.load` patches, changes
# Of the processor, because a build with many compilers on a busy machine only takes longer.
COMPILE_LIMIT_S = 120
COMPILE_PATIENCE_S = 15 * 60
PASSED_ON = frozenset(("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LD_LIBRARY_PATH"))
"""The variables of the environment that the compiler's process gets; the last one because bcc may be installed
apart."""


def compile_program(text: str) -> Bytecode:
    """The bytecode of `text`: from the cache, from what came with this installation, translated, or compiled.

    Raises UnsupportedError where it must be compiled and bcc is missing, and ProgramError with clang's first error and
    the line of the program that it is in.
    """
    return _find(text)[2]


def translate_program(text: str) -> Bytecode:
    """As `compile_program`, but never by bcc. UntranslatableError of C that the translator does not know."""
    key = _key(text, is_bcc=False)
    if (content := load(key)) is not None and (bytecode := decode(content)) is not None:
        return bytecode
    from usdtkit.bpf import translator  # as in `_make`

    bytecode = translator.translate(text)
    store(key, encode(bytecode))
    return bytecode


def cache_entry(text: str) -> tuple[str, bytes]:
    """The program's key, and what the cache keeps under it. Raises as `compile_program` does."""
    key, content, _ = _find(text)
    return key, content


def compile_afresh(text: str) -> Bytecode:
    """The bytecode of `text`, compiled by bcc now: this shows whether it works. Raises as `compile_program` does."""
    return _compile(text, "")[0]


def is_bytecode(content: bytes) -> bool:
    """Whether an entry of the cache holds bytecode, which the kernel may still refuse."""
    return decode(content) is not None


def _find(text: str) -> tuple[str, bytes, Bytecode]:
    key = _key(text)
    if (content := load(key)) is not None and (bytecode := decode(content)) is not None:
        return key, content, bytecode
    if (content := _shipped(key)) is None or (bytecode := decode(content)) is None:
        bytecode, content = _make(text)
    store(key, content)
    return key, content, bytecode


def _shipped(key: str) -> bytes | None:
    from usdtkit.bpf import bundle  # its import takes longer than reading the cache

    return bundle.shipped(key)


def _make(text: str) -> tuple[Bytecode, bytes]:
    if _always_bcc():
        return _compile(text, "")
    from usdtkit.bpf import translator  # most starts find their program in the cache

    try:
        bytecode = translator.translate(text)
    except translator.UntranslatableError as error:
        import logging  # its import takes long

        logging.getLogger(__name__).info("bcc compiles the program, because of %s", error)
        return _compile(text, str(error))
    return bytecode, encode(bytecode)


def _compile(text: str, reason: str) -> tuple[Bytecode, bytes]:
    """What bcc makes of a text, and its answer as the cache keeps it; `reason` says what needs bcc, or is ""."""
    try:
        answer = _run_child(text)
    except UnsupportedError as error:
        because = f", because of {reason}" if reason else ""
        raise UnsupportedError(
            f"a BPF program must be compiled{because}, and {error.message}", hint=error.hint
        ) from None
    bytecode = decode(answer)
    if bytecode is None:
        raise UsdtkitError(
            "the output of the compiler cannot be read", hint="report this with the output of usdtkit doctor"
        )
    return bytecode, answer


def _always_bcc() -> bool:
    """Whether the user wants bcc to compile everything, to compare, or to get around a fault of the translator."""
    return os.environ.get("USDTKIT_COMPILER") == "bcc"


def _key(text: str, *, is_bcc: bool | None = None) -> str:
    is_bcc = _always_bcc() if is_bcc is None else is_bcc
    # bcc's version is in the entry and not in the key, so that a machine without bcc finds entries too.
    whole = "\0".join([str(FORMAT), "bcc" * is_bcc, os.uname().machine, _headers_hash(), text])
    return key_of(whole.encode())


@cache
def _headers_hash() -> str:
    return key_of(*map(_content, sorted(f"{folder}/{name}" for folder, _, names in os.walk(HEADERS) for name in names)))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _run_child(text: str) -> bytes:
    import signal  # as the next, only needed when the program is not in the cache
    import subprocess

    # clang searches for its headers below the current directory, and where variables such as CPATH say. Both may be
    # controlled by another user, and what is compiled runs in the kernel.
    environment = {name: value for name, value in os.environ.items() if name in PASSED_ON}
    environment["BCC_KERNEL_SOURCE"] = HEADERS
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", CHILD, str(COMPILE_LIMIT_S)],
            input=text.encode(),
            capture_output=True,
            env=environment,
            cwd="/",
            timeout=COMPILE_PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        raise UsdtkitError(f"compiling the BPF program took longer than {COMPILE_PATIENCE_S} s") from None
    if child.returncode == -signal.SIGXCPU:
        raise UsdtkitError(f"compiling the BPF program took more than {COMPILE_LIMIT_S} s of the processor")
    if child.returncode == 0:
        return child.stdout
    errors = child.stderr.decode(errors="backslashreplace")
    if child.returncode == 5:
        raise UnsupportedError(f"its compiler is missing: {errors.strip().splitlines()[-1]}", hint=BCC_HINT)
    raise _explain(errors, text)


def _explain(errors: str, text: str) -> ProgramError:
    """The error of clang's first complaint, with the function of the program, or the piece of a user's C, that it is
    in."""
    if raw := re.search(r"^((?:raw|declarations)_\d+):(\d+):\d+: error: (.*)", errors, re.MULTILINE):
        return ProgramError(raw[3], raw[1], int(raw[2]))
    if whole := re.search(r"error: .*in function (\w+) .*?: (.*)", errors):
        return ProgramError(f"the BPF program does not compile: {whole[2]}", whole[1])
    line = re.search(r"/virtual/main\.c:(\d+):\d+: error: (.*)", errors)
    if line is None:
        return ProgramError(f"the BPF program does not compile: {errors.strip()[-400:] or 'the compiler died'}")
    before = text.splitlines()[: int(line[1])]
    functions = re.findall(r"^int (hook_\d+)\(", "\n".join(before), re.MULTILINE)
    message = f"the BPF program does not compile: {line[2]}, in: {before[-1].strip()}"
    return ProgramError(message, functions[-1] if functions else "")
