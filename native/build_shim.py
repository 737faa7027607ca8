"""cffi's build script: the headers below → the compiled module `usdtkit._shim` (API mode). Run by setuptools, see
setup.py."""

import re
from pathlib import Path

from cffi import FFI

here = Path(__file__).parent
names = ["shim", "mappings", "btf", "decode", "unwind"]
headers = [f"{name}.h" for name in names]
declarations = "".join((here / name).read_text() for name in headers)


def files(name: str) -> list[Path]:
    """NAME.c and all NAME_*.c."""
    return [here / f"{name}.c", *sorted(here.glob(f"{name}_*.c"))]


ffi = FFI()
ffi.cdef(re.sub(r"^#.*$", "", declarations, flags=re.MULTILINE))
ffi.set_source(
    "usdtkit._shim",
    "".join(f'#include "{name}"\n' for name in headers),
    sources=[f"native/{path.name}" for name in names for path in files(name)],
    include_dirs=["native"],
    depends=sorted(f"native/{path.name}" for path in here.glob("*.h")),
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
)
