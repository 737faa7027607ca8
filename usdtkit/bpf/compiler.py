"""C text → `Bytecode`: from the cache, else from what was shipped, else by a child process around bcc.

Input: a whole program in bcc's C, which `program` writes. Output: bytecode, which `usdtkit.kernel.load` puts into the
kernel. No kernel headers are needed: the child (`_bcc_child.py`) uses those in headers/, so that the kernel's version
and configuration do not matter. A start whose program is in the cache reads one file and starts no process.
"""

# Every start imports this module, and importing pathlib takes long.
# ruff: noqa: PTH120, PTH123

from __future__ import annotations

import os
import re
import sys
from binascii import a2b_base64  # importing base64 takes longer
from functools import cache
from typing import Any

from usdtkit.bpf import cache as bytecode_cache
from usdtkit.errors import ProgramError, UnsupportedError, UsdtkitError
from usdtkit.records import dataclass

try:
    from _blake2 import blake2b  # the same as hashlib's, without loading OpenSSL for other hashes
except ImportError:
    from hashlib import blake2b

HEADERS = f"{os.path.dirname(__file__)}/headers"
CHILD = f"{os.path.dirname(__file__)}/_bcc_child.py"
BCC_HINT = (
    "install it: apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora); "
    "or compile elsewhere: usdtkit bundle"
)
FORMAT = 1  # to be raised when the child's answer, or what `usdtkit.kernel.load` patches, changes
# Of the processor, because a build with many compilers on a busy machine only takes longer.
COMPILE_LIMIT_S = 120
COMPILE_PATIENCE_S = 15 * 60
PASSED_ON = frozenset(("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LD_LIBRARY_PATH"))
"""The variables of the environment that the compiler's process gets; the last one because bcc may be installed
apart."""


@dataclass(frozen=True, slots=True)
class MapDescription:
    """A map as bpf(2) describes it: sizes in bytes, `type` and `flags` as in linux/bpf.h."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Compiled programs by name, in 8-byte instructions. References to maps are indexes into `maps`."""

    maps: tuple[MapDescription, ...]
    programs: dict[str, bytes]
    bcc_version: str


def compile_program(text: str) -> Bytecode:
    """The bytecode of `text`: from the cache, from what came with this installation, or compiled.

    Raises UnsupportedError where it must be compiled and bcc is missing, and ProgramError with clang's first error and
    the line of the program that it is in.
    """
    return _find(text)[2]


def cache_entry(text: str) -> tuple[str, bytes]:
    """The program's key, and what the cache keeps under it. Raises as `compile_program` does."""
    key, content, _ = _find(text)
    return key, content


def compile_afresh(text: str) -> Bytecode:
    """The bytecode of `text`, compiled now: this shows whether the compiler works. Raises as `compile_program` does."""
    return _compile(text)[0]


def is_bytecode(content: bytes) -> bool:
    """Whether an entry of the cache holds bytecode, which the kernel may still refuse."""
    return _decode(content) is not None


def _find(text: str) -> tuple[str, bytes, Bytecode]:
    key = _key(text)
    if (content := bytecode_cache.load(key)) is not None and (bytecode := _decode(content)) is not None:
        return key, content, bytecode
    if (content := _shipped(key)) is None or (bytecode := _decode(content)) is None:
        bytecode, content = _compile(text)
    bytecode_cache.store(key, content)
    return key, content, bytecode


def _shipped(key: str) -> bytes | None:
    from usdtkit.bpf import bundle  # its import takes longer than reading the cache

    return bundle.shipped(key)


def _compile(text: str) -> tuple[Bytecode, bytes]:
    answer = _run_child(text)
    bytecode = _decode(answer)
    if bytecode is None:
        raise UsdtkitError(
            "the output of the compiler cannot be read", hint="report this with the output of usdtkit doctor"
        )
    return bytecode, answer


def _key(text: str) -> str:
    # bcc's version is in the entry and not in the key, so that a machine without bcc finds entries too.
    whole = "\0".join([str(FORMAT), os.uname().machine, _headers_hash(), text])
    return blake2b(whole.encode(), digest_size=32).hexdigest()


@cache
def _headers_hash() -> str:
    digest = blake2b()
    for path in sorted(f"{folder}/{name}" for folder, _, names in os.walk(HEADERS) for name in names):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


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
        raise UnsupportedError(
            f"a BPF program must be compiled, and its compiler is missing: {errors.strip().splitlines()[-1]}",
            hint=BCC_HINT,
        )
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


def _decode(stored: bytes) -> Bytecode | None:
    """Bytecode from the child's JSON, or None where the JSON is something else."""
    import json  # here, because it takes a millisecond, and neither help nor --explain decodes a program

    try:
        answer: dict[str, Any] = json.loads(stored)
        return Bytecode(
            maps=tuple(
                MapDescription(_name(m["name"]), *(_u32(m[of]) for of in ("type", "key", "value", "entries", "flags")))
                for m in answer["maps"]
            ),
            programs={_name(name): a2b_base64(code) for name, code in answer["programs"].items()},
            bcc_version=str(answer["bcc"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _name(name: str) -> str:
    if not name.isascii() or not name.isidentifier():
        raise ValueError(name)
    return name


def _u32(number: int) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**32:
        raise ValueError(number)
    return number
