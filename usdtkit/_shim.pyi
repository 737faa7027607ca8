"""The compiled shim, native/shim.h and native/decode.h, as cffi makes it; `usdtkit._ffi` is its one door."""

from typing import Any

ffi: Any
lib: Any
