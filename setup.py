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
    """With USDTKIT_PROGRAMS=1, compile the BPF programs of the tools into a bundle, which becomes part of the wheel.

    This needs bcc, the privilege to use it, and minutes of the processor. An application that only fires its probes
    needs no program, so a plain build compiles none. A program that does not compile is named and left out, and the
    build fails if none compiles. An editable install has no bundle: a checkout compiles the programs that it needs.
    Programs that are in the cache that USDTKIT_CACHE names are not compiled again. Without that variable all are.
    """

    user_options: ClassVar = []

    def initialize_options(self):
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        if self.editable_mode:
            return
        package = Path(self.build_lib).resolve()
        output = package / BUNDLE
        output.unlink(missing_ok=True)
        if not self.wanted():
            return
        # Not by PYTHONPATH, because the command ignores most of it when root builds.
        paths = [str(package), *filter(None, sys.path)]
        code = f"import sys; sys.path[:0] = {paths!r}; from usdtkit.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-I", "-B", "-c", code, "bundle", "--all", "-o", str(output)]
        with tempfile.TemporaryDirectory() as cache:
            # Its output is not captured: it says which program is being compiled, a line each.
            environment = {"USDTKIT_CACHE": cache, **os.environ}
            done = subprocess.run(command, cwd=cache, env=environment, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit("USDTKIT_PROGRAMS=1, but the tools' programs cannot be compiled: see above")

    @staticmethod
    def wanted():
        return os.environ.get("USDTKIT_PROGRAMS", "") not in ("", "0")

    def get_source_files(self):
        return []

    def get_outputs(self):
        return [str(Path(self.build_lib) / BUNDLE)] if self.wanted() and not self.editable_mode else []

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


# The same files in another directory are to give the same modules, although debug information names the directory.
os.environ["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} -ffile-prefix-map={Path.cwd()}=."

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
            # On other systems than Linux and other interpreters than CPython, probes do nothing and nothing can be
            # traced; both work without these modules.
            optional=sys.platform != "linux" or sys.implementation.name != "cpython",
        )
        for name in ("probe", "events", "python")
    ],
)
