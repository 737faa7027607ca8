"""The compiler's child process: C text on standard input → bytecode as JSON on standard output.

This is the only file that imports bcc. It runs alone (`python -I -S _bcc_child.py SECONDS`), so that LLVM's memory and
a crash of clang end with it, and imports nothing of ours. Everything that bcc prints goes to standard error. The exit
status is 0, 1 where clang refused the text, or 5 where there is no usable bcc. SIGXCPU ends it when it has used that
many seconds of the processor.

Output: {"bcc": version, "maps": [{name, type, key, value, entries, flags}, …], "programs": {name: base64 of its
instructions}}. A 64-bit constant with the source register 1 is an index into "maps".
"""

import base64
import ctypes
import json
import os
import resource
import struct
import sys
from typing import Any

LD_IMM64 = 0x18
PSEUDO_MAP_FD = 1


def main() -> int:
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Distributions install bcc for their own Python. It is pure ctypes, so any interpreter can load it.
    sys.path.append("/usr/lib/python3/dist-packages")
    try:
        import bcc  # type: ignore[import-untyped, unused-ignore]
    except (ImportError, OSError) as error:
        print(f"cannot import bcc: {error}", file=sys.stderr)
        return 5
    if not hasattr(bcc, "BPF"):  # PyPI's bcc is another project
        print(f"{next(iter(bcc.__path__))} is not the BPF compiler collection", file=sys.stderr)
        return 5
    try:
        module = bcc.BPF(text=sys.stdin.buffer.read())
    except Exception as error:  # noqa: BLE001  bcc raises bare Exception
        print(error, file=sys.stderr)
        return 1
    json.dump(describe(bcc, module), output)
    output.close()
    # Skip bcc's exit handlers: the process's end closes the maps.
    os._exit(0)


def describe(bcc: Any, module: Any) -> dict[str, Any]:
    """The output for a compiled module."""
    library = bcc.lib
    handle = ctypes.c_void_p(module.module)

    def ask(function: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
        call = library[function]  # a new function object, because those of bcc have prototypes
        call.restype = result
        return call(handle, *arguments)

    maps, index_by_fd = [], {}
    for index in range(ask("bpf_num_tables", result=ctypes.c_size_t)):
        table = ctypes.c_size_t(index)
        index_by_fd[ask("bpf_table_fd_id", table)] = index
        maps.append(
            {
                "name": ask("bpf_table_name", table, result=ctypes.c_char_p).decode(),
                "type": ask("bpf_table_type_id", table),
                "key": ask("bpf_table_key_size_id", table, result=ctypes.c_size_t),
                "value": ask("bpf_table_leaf_size_id", table, result=ctypes.c_size_t),
                "entries": ask("bpf_table_max_entries_id", table, result=ctypes.c_size_t),
                "flags": ask("bpf_table_flags_id", table),
                "inner": 0,
            }
        )
    programs = {}
    for index in range(ask("bpf_num_functions", result=ctypes.c_size_t)):
        name = ask("bpf_function_name", ctypes.c_size_t(index), result=ctypes.c_char_p)
        code = bytearray(module.dump_func(name))
        skip = False
        for at in range(0, len(code), 8):
            if skip:  # the second half of the instruction before
                skip = False
                continue
            opcode, registers, immediate = code[at], code[at + 1], struct.unpack_from("<i", code, at + 4)[0]
            skip = opcode == LD_IMM64
            if skip and registers >> 4 == PSEUDO_MAP_FD:
                struct.pack_into("<i", code, at + 4, index_by_fd[immediate])
        programs[name.decode()] = base64.b64encode(code).decode()
    return {"bcc": bcc.__version__, "maps": maps, "programs": programs}


if __name__ == "__main__":
    sys.exit(main())
