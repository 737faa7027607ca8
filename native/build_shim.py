"""cffi's build script: the headers below → the compiled module `usdtkit._shim` (API mode). Run by setuptools, see
setup.py."""

import re
from pathlib import Path

from cffi import FFI

here = Path(__file__).parent
names = ["shim", "mappings", "btf", "decode", "unwind"]
headers = [f"{name}.h" for name in names]
declarations = "".join((here / name).read_text() for name in headers)

ffi = FFI()
ffi.cdef(re.sub(r"^#.*$", "", declarations, flags=re.MULTILINE))
ffi.set_source(
    "usdtkit._shim",
    "".join(f'#include "{name}"\n' for name in headers),
    sources=[f"native/{name}.c" for name in names],
    include_dirs=["native"],
    depends=[f"native/{name}" for name in [*headers, "records.h"]],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
)
