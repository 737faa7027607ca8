"""cffi's build script: shim.h → the compiled module `usdtkit._shim` (API mode). Run by setuptools, see setup.py."""

import re
from pathlib import Path

from cffi import FFI

here = Path(__file__).parent
header = (here / "shim.h").read_text()

ffi = FFI()
ffi.cdef(re.sub(r"^#.*$", "", header, flags=re.MULTILINE))
ffi.set_source(
    "usdtkit._shim",
    '#include "shim.h"',
    sources=["native/shim.c"],
    include_dirs=["native"],
    depends=["native/shim.h"],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
)
