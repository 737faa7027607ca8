"""The compiled modules; everything else about the package is in pyproject.toml."""

from setuptools import Extension, setup

setup(
    cffi_modules=["native/build_shim.py:ffi"],
    ext_modules=[
        Extension(f"usdtkit.{name}", [source], extra_compile_args=["-O2", "-Wall", "-Wextra"])
        for name, source in (("_probe", "native/probe.c"), ("_events", "native/events.c"))
    ],
)
