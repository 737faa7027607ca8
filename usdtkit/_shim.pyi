"""The compiled shim: what the headers of native/build_shim.py declare, by cffi. `usdtkit._ffi` is its one door."""

from typing import Any

ffi: Any
lib: Any
