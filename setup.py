"""The compiled modules, and the compiled programs of the tools; everything else about the package: pyproject.toml."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build import build

from distutils.command.build_scripts import build_scripts  # isort: skip  setuptools brings it, and has none of its own

BUNDLE = "usdtkit/bpf/shipped.bundle"


class build_programs(Command):
    """Compile the tools' BPF programs into a bundle of the wheel, where bcc and the privilege to use it are there.

    An editable install has none: a checkout compiles what it needs. USDTKIT_REQUIRE_PROGRAMS=1 makes it an error where
    they cannot be compiled.
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
        # Not by PYTHONPATH, of which the command takes little where root builds.
        paths = [str(package), *filter(None, sys.path)]
        code = f"import sys; sys.path[:0] = {paths!r}; from usdtkit.cli import main; sys.exit(main(sys.argv[1:]))"
        command = [sys.executable, "-I", "-B", "-c", code, "bundle", "--all", "-o", str(output)]
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "USDTKIT_CACHE": cache}
            done = subprocess.run(command, cwd=cache, env=environment, text=True, capture_output=True)
        for line in (done.stdout + done.stderr).splitlines():
            self.announce(line, level=3)
        if done.returncode != 0:
            if os.environ.get("USDTKIT_REQUIRE_PROGRAMS", "") not in ("", "0"):
                raise SystemExit("the tools' programs cannot be compiled")
            self.warn("the wheel comes without compiled programs: its tools will need bcc on the machine they run on")

    def get_source_files(self):
        return []

    def get_outputs(self):
        return [] if self.editable_mode else [str(Path(self.build_lib) / BUNDLE)]

    def get_output_mapping(self):
        return {}


class build_command(build_scripts):
    """Write the name of this Python into the command: it starts the one of that name that lies beside it."""

    def copy_scripts(self):
        outputs, updated = super().copy_scripts()
        for path in map(Path, updated):
            python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            path.write_text(path.read_text().replace("@PYTHON@", python))
        return outputs, updated


# After build_py and build_ext: the compiler is driven by what they have built.
build.sub_commands = [*build.sub_commands, ("build_programs", None)]

setup(
    cmdclass={"build_programs": build_programs, "build_scripts": build_command},
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
