"""Builds the compiled modules and the programs of the tools. All else about the package is in pyproject.toml."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build

from distutils.command.build_scripts import build_scripts  # isort: skip  part of setuptools, which has no such command of its own

BUNDLE = "usdtkit/bpf/shipped.bundle"


def sources(name):
    """The C files of usdtkit._NAME: native/NAME.c and all native/NAME_*.c."""
    native = Path("native")
    return [str(native / f"{name}.c"), *sorted(map(str, native.glob(f"{name}_*.c")))]


class build_programs(Command):
    """Compile the BPF programs of the tools into a bundle, which becomes part of the wheel.

    This needs bcc and the privilege to use it. Without them the wheel has no programs, which is an error if
    USDTKIT_REQUIRE_PROGRAMS=1. An editable install has no bundle: a checkout compiles the programs that it needs.
    Programs that are in the cache that USDTKIT_CACHE names are not compiled again. Without that variable all are.
    """

    user_options: ClassVar = []

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        if self.editable_mode or sys.platform != "linux":
            return
        package = Path(self.build_lib).resolve()
        output = package / BUNDLE
        output.unlink(missing_ok=True)
        # Not by PYTHONPATH, because the command ignores most of it when root builds.
        paths = [str(package), *filter(None, sys.path)]
        code = f"import sys; sys.path[:0] = {paths!r}; from usdtkit.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-I", "-B", "-c", code, "bundle", "--all", "-o", str(output)]
        with tempfile.TemporaryDirectory() as cache:
            environment = {"USDTKIT_CACHE": cache, **os.environ}
            done = subprocess.run(command, cwd=cache, env=environment, text=True, capture_output=True)
        for line in (done.stdout + done.stderr).splitlines():
            self.announce(line, level=3)
        if done.returncode != 0:
            if os.environ.get("USDTKIT_REQUIRE_PROGRAMS", "") not in ("", "0"):
                raise SystemExit("the tools' programs cannot be compiled")
            self.warn("the wheel has no compiled programs: its tools will need bcc on the machines that they run on")

    def get_source_files(self):
        return []

    def get_outputs(self):
        return [] if self.editable_mode else [str(Path(self.build_lib) / BUNDLE)]

    def get_output_mapping(self):
        return {}


class build_command(build_scripts):
    """Write the name of this Python into the command, which starts the Python of that name in its own directory."""

    def copy_scripts(self):
        outputs, updated = super().copy_scripts()
        for path in map(Path, updated):
            python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            path.write_text(path.read_text().replace("@PYTHON@", python))
        return outputs, updated


# After build_py and build_ext, because what they have built runs the compiler.
build.sub_commands = [*build.sub_commands, ("build_programs", None)]

setup(
    cmdclass={"build_programs": build_programs, "build_scripts": build_command},
    cffi_modules=["native/build_shim.py:ffi"],
    ext_modules=[
        Extension(
            f"usdtkit._{name}",
            sources(name),
            depends=sorted(map(str, Path("native").glob("*.h"))),
            extra_compile_args=["-O2", "-Wall", "-Wextra"],
            # On other systems than Linux probes do nothing and nothing can be traced; both work without these modules.
            optional=sys.platform != "linux",
        )
        for name in ("probe", "events", "python")
    ],
)
