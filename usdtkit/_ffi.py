"""The one door to the compiled shim (native/shim.h): its functions, and its error codes as exceptions."""

from __future__ import annotations

import errno
import os
from typing import Any

from usdtkit.errors import PrivilegeError, UsdtkitError

try:
    import usdtkit._shim as _shim  # `from usdtkit` would mean the package's __getattr__ to mypy
except ImportError as error:
    raise UsdtkitError(
        f"usdtkit's compiled module cannot be loaded: {error}",
        hint="build it: pip install --force-reinstall usdtkit, or in a checkout: make setup",
    ) from error

# cffi gives no types for what it compiles; the callers in `bpf` and `features` carry theirs.
ffi: Any = _shim.ffi
lib: Any = _shim.lib

PRIVILEGE_HINT = "run as root (sudo usdtkit …), or grant CAP_BPF and CAP_PERFMON (kernel 6.6 or newer)"

# What says nothing of a program, a site or a map, only of this moment: of signals, or of what has run out.
TRANSIENT = frozenset(
    {-code for code in (errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ENOMEM, errno.EMFILE, errno.ENFILE)}
)


def check(result: int, what: str) -> int:
    """Return `result`, or raise for a negative errno: PrivilegeError for EPERM and EACCES, else UsdtkitError."""
    if result >= 0:
        return result
    code = -result
    message = f"{what}: {describe(code)}"
    if code in (errno.EPERM, errno.EACCES):
        raise PrivilegeError(message, hint=PRIVILEGE_HINT)
    raise UsdtkitError(message)


def describe(code: int) -> str:
    """What the kernel means by an errno, in words."""
    # 524, ENOTSUPP, stays inside the kernel's own headers and has no name outside.
    return "not supported by the kernel (errno 524)" if code == 524 else os.strerror(code)
