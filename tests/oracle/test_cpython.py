"""Python's frames as they are read from outside, on every CPython that is here: its own headers say where its
structures have what, it finds the lines of its instructions itself, and it says which frames its threads have."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pythons import everywhere

from usdtkit.elf.image import Image
from usdtkit.signatures.cpython import BEFORE_SHIM, EVERY, MARKED
from usdtkit.unwind.codeobjects import CodeObject
from usdtkit.unwind.cpython import EVALUATION, build_of
from usdtkit.unwind.evaluation import evaluation_ranges
from usdtkit.unwind.pythons import Pythons, threads_of

PROGRAM = Path(__file__).parents[1] / "programs" / "pyframes.py"
WAYS = 9
every_python = pytest.mark.parametrize("version", everywhere())

OFFSETS = r"""
#define Py_BUILD_CORE 1
#include <Python.h>
#include <stddef.h>
#include <stdio.h>
#if PY_VERSION_HEX >= 0x03090000
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#else
#include "internal/pycore_pystate.h"
#endif
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_interpframe.h"
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"
typedef struct _PyInterpreterFrame Frame;
#else
#include "frameobject.h"
typedef PyFrameObject Frame;
#endif
#define SAY(name, type, member) printf("%s %zu\n", #name, offsetof(type, member))
int main(void) {
  SAY(interpreters, _PyRuntimeState, interpreters.head);
  printf("main %zu\n", offsetof(_PyRuntimeState, interpreters.main) - 8);
  SAY(interpreter_next, PyInterpreterState, next);
  SAY(thread_next, PyThreadState, next);
  SAY(thread_interpreter, PyThreadState, interp);
  SAY(thread_id, PyThreadState, thread_id);
  SAY(file, PyCodeObject, co_filename);
  SAY(first_line, PyCodeObject, co_firstlineno);
  printf("ascii %zu\ntext %zu\n", sizeof(PyASCIIObject), sizeof(PyCompactUnicodeObject));
#if PY_VERSION_HEX >= 0x030b0000
  SAY(threads, PyInterpreterState, threads.head);
  SAY(name, PyCodeObject, co_qualname);
  SAY(lines, PyCodeObject, co_linetable);
  SAY(instructions, PyCodeObject, co_code_adaptive);
  SAY(previous, Frame, previous);
#else
  SAY(threads, PyInterpreterState, tstate_head);
  SAY(thread_frame, PyThreadState, frame);
  SAY(name, PyCodeObject, co_name);
  SAY(previous, Frame, f_back);
  SAY(code, Frame, f_code);
  SAY(at, Frame, f_lasti);
#endif
#if PY_VERSION_HEX < 0x030a0000
  SAY(lines, PyCodeObject, co_lnotab);
#elif PY_VERSION_HEX < 0x030b0000
  SAY(lines, PyCodeObject, co_linetable);
#elif PY_VERSION_HEX < 0x030d0000
  SAY(thread_frame, PyThreadState, cframe);
  printf("indirect %zu\n", offsetof(_PyCFrame, current_frame) + 1);
  SAY(code, Frame, f_code);
  SAY(at, Frame, prev_instr);
#else
  SAY(thread_frame, PyThreadState, current_frame);
  SAY(code, Frame, f_executable);
  SAY(at, Frame, instr_ptr);
#endif
#if PY_VERSION_HEX >= 0x030c0000
  SAY(entry, Frame, owner);
#elif PY_VERSION_HEX >= 0x030b0000
  SAY(entry, Frame, is_entry);
#endif
  return 0;
}
"""
LINES = """
import contextlib, heapq, json, json.decoder, shlex, textwrap, bisect

def codes(code):
    yield code
    for each in code.co_consts:
        if isinstance(each, type(code)):
            yield from codes(each)

for module in (contextlib, heapq, json.decoder, shlex, textwrap, bisect):
    with open(module.__file__, encoding="utf-8") as file:
        for code in codes(compile(file.read(), module.__file__, "exec")):
            lines = [None] * (len(code.co_code) // 2)
            if hasattr(code, "co_lines"):
                for start, end, line in code.co_lines():
                    lines[start // 2 : end // 2] = [line] * ((end - start) // 2)
                table = code.co_linetable
            else:
                import dis
                starts = list(dis.findlinestarts(code)) + [(len(code.co_code), 0)]
                for (start, line), (end, _) in zip(starts, starts[1:]):
                    lines[start // 2 : end // 2] = [line] * ((end - start) // 2)
                table = code.co_lnotab
            print(json.dumps([code.co_name, code.co_firstlineno, table.hex(), lines]))
"""


def file_of(version):
    """The file that has the interpreter: the program, or the library that it is linked with."""
    script = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'), sysconfig.get_config_var('INSTSONAME'))"
    folder, name = run(version, script).split()
    library = Path(folder, name)
    return library if ".so" in name and library.exists() else Path(everywhere()[version]).resolve()


def run(version, script):
    return subprocess.run([everywhere()[version], "-c", script], check=True, capture_output=True, text=True).stdout


def numbers(version):
    return tuple(map(int, version.split(".")[:2]))


@every_python
def test_offsets_are_those_of_the_headers(version, compile_c):
    include = Path(run(version, "import sysconfig; print(sysconfig.get_path('include'))").strip())
    if not (include / "Python.h").exists():  # it was unpacked, and believes that it was installed
        include = Path(everywhere()[version]).parents[1] / "include" / include.name
    flags = [f"-I{include}", f"-I{include}/internal", f"-I{include}/..", "-Wno-error"]
    said = dict(line.split() for line in subprocess.check_output([compile_c(OFFSETS, *flags)], text=True).splitlines())
    with Image.open(file_of(version)) as image:
        build = build_of(image)
    layout = build.layout
    assert build.version == numbers(version)
    assert said.pop("main") == said["interpreters"]
    assert {name: getattr(layout, name) for name in said} == {name: int(value) for name, value in said.items()}
    assert layout.entries == (EVERY if build.version < (3, 11) else MARKED if build.version < (3, 12) else BEFORE_SHIM)


@every_python
def test_lines_are_those_that_python_finds(version):
    compared = 0
    for line in run(version, LINES).splitlines():
        name, first_line, table, lines = json.loads(line)
        code = CodeObject(numbers(version), name, "", first_line, bytes.fromhex(table))
        unit = 1 if numbers(version) == (3, 10) else 2
        assert [code.line(unit * n) for n in range(len(lines))] == lines, name
        compared += len(lines)
    assert compared > 5000


@every_python
def test_frames_of_threads_are_what_python_says(version, spawn, wait_for_line):
    process = spawn([everywhere()[version], PROGRAM, "wait"])
    wait_for_line(process, "ready")
    process.stdin.write("\n")
    process.stdin.flush()
    said = {}
    while len(said) < WAYS:
        if (line := process.stdout.readline()).startswith("{"):
            view = json.loads(line)
            said[view["thread"]] = [(name, file, line) for name, file, line, n in view["frames"] for _ in range(n)]
    python = Pythons().of(process.pid)
    assert python.build.version == numbers(version)
    found = {thread.id: [frame[:3] for frame in thread.frames] for thread in threads_of(python)}
    # A thread that has said where it is may not have come to its lock yet, but it is on the same line.
    inner = {id: [frame for frame in frames if frame[0] not in ("say", "say_view")] for id, frames in found.items()}
    assert {id: inner[id] for id in said} == said
    assert max(map(len, said.values())) > 100
    assert {"große", "große.<locals>.函数.<locals>.𐎠"} & {frame[0] for frames in said.values() for frame in frames}


@every_python
def test_the_parts_of_the_evaluation_function(version, tmp_path):
    """By symbols where there are, else by the jumps to them: both of the same file, where it can be stripped."""
    path = file_of(version)
    with Image.open(path) as image:
        ranges = evaluation_ranges(image, EVALUATION)
    listed = subprocess.check_output(["readelf", "-sW", path], text=True)
    found = re.findall(rf" ([0-9a-f]{{16}}) +(\d+) FUNC +\w+ +\w+ +\d+ {EVALUATION}(?:\.cold(?:\.\d+)?)?\n", listed)
    symbols = {(int(start, 16), int(start, 16) + int(size)) for start, size in found}
    assert symbols <= set(ranges)
    copy = tmp_path / "stripped"
    shutil.copy(path, copy)
    subprocess.run(["strip", copy], check=True)
    with Image.open(copy) as image:
        by_jumps = evaluation_ranges(image, EVALUATION)
    # A part that no jump leads to is one that is never reached: an instruction or two that call nothing.
    assert all(end - start <= 8 for start, end in set(ranges) ^ set(by_jumps))
