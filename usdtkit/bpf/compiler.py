"""C text → `Bytecode`: from the cache, else by a child process around bcc (`_bcc_child.py`).

Input: a whole program in bcc's C (`program.py` writes it). Output: frozen bytecode that `loader` puts into the kernel.
No kernel headers: the child is pointed at headers/, so that neither they nor a kernel's configuration matter.
A warm start reads one file and starts no process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from usdtkit.bpf import cache as bytecode_cache
from usdtkit.errors import ProgramError, UnsupportedError, UsdtkitError

HEADERS = Path(__file__).parent / "headers"
CHILD = Path(__file__).parent / "_bcc_child.py"
BCC_HINT = "install it: apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora)"
FORMAT = 1  # raise it when the child's answer or the patching in `loader` changes
COMPILE_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class MapDescription:
    """A map as bpf(2) wants it: sizes in bytes, `type` and `flags` as in linux/bpf.h."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Compiled programs by name (8-byte instructions; map references are indexes into `maps`)."""

    maps: tuple[MapDescription, ...]
    programs: dict[str, bytes]
    bcc_version: str


def compile_program(text: str) -> Bytecode:
    """Compile `text`, or take it from the cache.

    Raises UnsupportedError where a compilation is needed and bcc is missing, ProgramError with clang's first error
    and the line of the program it stands in.
    """
    key = _key(text)
    stored = bytecode_cache.load(key)
    if stored is not None:
        bytecode = _decode(stored)
        if bytecode is not None:
            return bytecode
    bytecode, answer = _compile(text)
    bytecode_cache.store(key, answer)
    return bytecode


def compile_afresh(text: str) -> Bytecode:
    """As `compile_program`, without the cache: shows whether the compiler works."""
    return _compile(text)[0]


def _compile(text: str) -> tuple[Bytecode, bytes]:
    answer = _run_child(text)
    bytecode = _decode(answer)
    if bytecode is None:
        raise UsdtkitError("the compiler's answer cannot be read", hint="report this with what usdtkit doctor says")
    return bytecode, answer


def _key(text: str) -> str:
    # bcc's version is recorded in the entry and left out of the key: a machine without bcc finds entries as well.
    whole = "\0".join([str(FORMAT), os.uname().machine, _headers_hash(), text])
    return hashlib.sha256(whole.encode()).hexdigest()


@cache
def _headers_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(HEADERS.rglob("*.h")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run_child(text: str) -> bytes:
    import subprocess  # a warm start does without

    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(HEADERS)}
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", str(CHILD)],
            input=text.encode(),
            capture_output=True,
            env=environment,
            timeout=COMPILE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UsdtkitError(f"compiling the BPF program took longer than {COMPILE_TIMEOUT_S} s") from None
    if child.returncode == 0:
        return child.stdout
    said = child.stderr.decode(errors="backslashreplace")
    if child.returncode == 5:
        raise UnsupportedError(
            f"a BPF program must be compiled, and its compiler is missing: {said.strip().splitlines()[-1]}",
            hint=BCC_HINT,
        )
    raise _explain(said, text)


def _explain(said: str, text: str) -> ProgramError:
    """What clang complains of, and the function of the program, or the part of it that a user wrote."""
    if own := re.search(r"^((?:raw|declarations)_\d+):(\d+):\d+: error: (.*)", said, re.MULTILINE):
        return ProgramError(own[3], own[1], int(own[2]))
    if whole := re.search(r"error: .*in function (\w+) .*?: (.*)", said):
        return ProgramError(f"the BPF program does not compile: {whole[2]}", whole[1])
    found = re.search(r"/virtual/main\.c:(\d+):\d+: error: (.*)", said)
    if found is None:
        return ProgramError(f"the BPF program does not compile: {said.strip()[-400:] or 'the compiler died'}")
    before = text.splitlines()[: int(found[1])]
    functions = re.findall(r"^int (hook_\d+)\(", "\n".join(before), re.MULTILINE)
    message = f"the BPF program does not compile: {found[2]}, in: {before[-1].strip()}"
    return ProgramError(message, functions[-1] if functions else "")


def _decode(stored: bytes) -> Bytecode | None:
    """Bytecode from the child's JSON, or None where it is not that."""
    try:
        answer: dict[str, Any] = json.loads(stored)
        return Bytecode(
            maps=tuple(
                MapDescription(m["name"], m["type"], m["key"], m["value"], m["entries"], m["flags"])
                for m in answer["maps"]
            ),
            programs={name: base64.b64decode(code) for name, code in answer["programs"].items()},
            bcc_version=answer["bcc"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
