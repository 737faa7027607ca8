"""Builds the compiled modules and the programs of the tools. All else about the package is in pyproject.toml."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build

from distutils.command.build_scripts import build_scripts  # isort: skip  part of setuptools, which has no such command of its own

BUNDLE = "usdtkit/bpf/shipped.bundle"
PAGES = "https://github.com/usdtkit/usdtkit/blob/main"


def sources(name):
    """The C files of usdtkit._NAME: native/NAME.c and all native/NAME_*.c."""
    native = Path("native")
    return [str(native / f"{name}.c"), *sorted(map(str, native.glob(f"{name}_*.c")))]


def description():
    """README for a page that is elsewhere than the files that it links to."""
    return re.sub(r"\]\((?!https?://)([^)]+)\)", rf"]({PAGES}/\1)", Path("README.md").read_text(encoding="utf-8"))


class build_programs(Command):
    """With USDTKIT_PROGRAMS=1, make the BPF programs of the tools, as a bundle that becomes part of the wheel.

    A plain build makes none, because an application that only fires its probes needs no program, and a tool makes the
    program that it needs in milliseconds. A program that cannot be made is named and left out, and the build fails if
    none can. An editable install has no bundle. Programs that are in the cache that USDTKIT_CACHE names are taken from
    there. See docs/bundle.md for programs that bcc compiles.
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
            # Its output is not captured: it names each program.
            environment = {"USDTKIT_CACHE": cache, **os.environ}
            done = subprocess.run(command, cwd=cache, env=environment, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SystemExit("USDTKIT_PROGRAMS=1, but the tools' programs cannot be made: see above")

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

# After build_py and build_ext, because what they have built makes the programs.
build.sub_commands = [*build.sub_commands, ("build_programs", None)]

setup(
    long_description=description(),
    long_description_content_type="text/markdown",
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
        for name in ("probe", "events", "lines", "python")
    ],
)
