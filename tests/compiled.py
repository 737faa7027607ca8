"""One of the compiled modules in a copy of the package, built with flags of a test's own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
SANITISE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def sources(name):
    """The C files of usdtkit._NAME, as setup.py finds them."""
    return [ROOT / "native" / f"{name}.c", *sorted((ROOT / "native").glob(f"{name}_*.c"))]


def build(folder, name, *flags):
    """A copy of the package in `folder` with usdtkit._NAME compiled by these flags; returns its path."""
    ignored = shutil.ignore_patterns(f"_{name}.*", "__pycache__", "tools")
    shutil.copytree(ROOT / "usdtkit", folder / "usdtkit", ignore=ignored)
    module = folder / "usdtkit" / f"_{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = sysconfig.get_path("include")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-isystem", include, *flags]
    done = subprocess.run([*command, *sources(name), "-o", module], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return module


def run_sanitised(folder, name, tests, chosen=""):
    """Run the tests of a file, those that are `chosen`, with usdtkit._NAME under the sanitisers."""
    module = build(folder, name, *SANITISE)
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout
    environment = os.environ | {
        "LD_PRELOAD": runtime.strip(),
        # The interpreter's own allocator hides overruns, and what it never frees is not ours.
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0",
        "USDTKIT_REQUIRE_KERNEL": "",
        "PYTHONPATH": str(folder),
    }
    checked = f"import sys, pytest, usdtkit._{name} as built; assert built.__file__ == sys.argv[1]"
    options = ["-q", "-s", "-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider", "-k", chosen, tests]
    command = [sys.executable, "-c", f"{checked}; sys.exit(pytest.main(sys.argv[2:]))"]
    done = subprocess.run([*command, module, *options], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
