"""The only module that imports the compiled shim (native/shim.h): its functions, and its error codes as exceptions."""

from __future__ import annotations

import errno
import os
from typing import Any

from usdtkit.errors import PrivilegeError, UsdtkitError, as_root

try:
    import usdtkit._shim as _shim  # not `from usdtkit`, which mypy takes for the package's __getattr__
except ImportError as error:
    raise UsdtkitError(
        f"usdtkit's compiled module cannot be loaded: {error}",
        hint="build it: pip install --force-reinstall usdtkit, or in a checkout: make setup",
    ) from error

# cffi gives no types for what it compiles; the functions that call it are annotated instead.
ffi: Any = _shim.ffi
lib: Any = _shim.lib

ENOTSUPP = 524  # it is defined in the kernel's own headers only, and still reaches us

# Errors that say nothing about a program, a site or a map, only about this moment: a signal came, or something ran out.
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
        raise PrivilegeError(message, hint=privilege_hint())
    raise UsdtkitError(message)


def privilege_hint() -> str:
    """What to do where the kernel refuses to trace."""
    return as_root("with CAP_BPF and CAP_PERFMON (kernel 6.6 or newer)")


def describe(code: int) -> str:
    """An errno in words."""
    return "not supported by the kernel (errno 524)" if code == ENOTSUPP else os.strerror(code)
