"""The compiled modules; everything else about the package is in pyproject.toml."""

import sys

from setuptools import Extension, setup

setup(
    cffi_modules=["native/build_shim.py:ffi"],
    ext_modules=[
        Extension(
            f"usdtkit.{name}",
            [source],
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
            # Elsewhere than on Linux probes do nothing, and there is nothing to trace: both can do that without it.
            optional=sys.platform != "linux",
        )
        for name, source in (
            ("_probe", "native/probe.c"),
            ("_events", "native/events.c"),
            ("_python", "native/python.c"),
        )
    ],
)
