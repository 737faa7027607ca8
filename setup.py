"""The two compiled modules; everything else about the package is in pyproject.toml."""

import sys

from setuptools import Extension, setup

setup(
    cffi_modules=["native/build_shim.py:ffi"],
    ext_modules=[
        Extension(
            "usdtkit._probe",
            ["native/probe.c"],
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
            # Elsewhere than on Linux probes do nothing, and can do that without it.
            optional=sys.platform != "linux",
        )
    ],
)
