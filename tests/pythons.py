"""The CPythons that are here, 3.10 and later, each with a tree that it can import usdtkit from.

The one that runs the tests has the tree itself; for the others the Python files are copied, and the two modules that an
application needs are compiled. `.ci/framed-python` fetches one that Debian 12 has not.
"""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from compiled import sources

ROOT = Path(__file__).parents[1]
NEEDED = ("probe", "python")
_ASK = """
import json, sys, sysconfig
version = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps([version, sysconfig.get_path("include"), sysconfig.get_config_var("EXT_SUFFIX")]))
"""


def framed_root():
    """The root directory with a CPython that has frame pointers; None where .ci/framed-python has not run."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "usdtkit-test" / "framed-python"
    return root if (root / "complete").exists() else None


@cache
def interpreters():
    """[(version, path)] of this interpreter and of others whose headers are here, as .ci/pythons finds them."""
    found = {tuple(_ask(sys.executable)): sys.executable}
    home, framed = Path.home() / ".pyenv" / "versions", framed_root()
    for path in [
        *Path("/usr/local/bin").glob("python3.1[0-9]"),
        *home.glob("3.1[0-9]*/bin/python"),
        *(framed.glob("usr/bin/python3.*-here") if framed else ()),
    ]:
        version, include, suffix = _ask(str(path))
        if Path(include, "Python.h").exists():
            found.setdefault((version, include, suffix), str(path))
    return [(key[0], path) for key, path in found.items()]


@cache
def _ask(path):
    return json.loads(subprocess.run([path, "-c", _ASK], check=True, capture_output=True, text=True).stdout)


def versions(least=(3, 10)):
    """Of `interpreters`, those from this version on, to parametrize a test with."""
    return [version for version, _ in interpreters() if tuple(map(int, version.split(".")))[:2] >= least]


def tree_for(version, folder):
    """(interpreter, what to put on PYTHONPATH) for a version; built in `folder`, once."""
    path = dict(interpreters())[version]
    if path == sys.executable:
        return path, str(ROOT)
    tree = Path(folder, version)
    if not tree.exists():
        shutil.copytree(ROOT / "usdtkit", tree / "usdtkit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        _, include, suffix = _ask(path)
        for name in NEEDED:
            target = tree / "usdtkit" / f"_{name}{suffix}"
            compiler = ["gcc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{include}", f"-I{include}/.."]
            subprocess.run([*compiler, *sources(name), "-o", target], check=True, capture_output=True)
    return path, str(tree)


def environment(tree, **more):
    """The environment of a program that imports usdtkit from that tree."""
    return os.environ | {"PYTHONPATH": tree, "PYTHONDONTWRITEBYTECODE": "1"} | {k: str(v) for k, v in more.items()}
