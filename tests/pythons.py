"""The CPythons that are here: all from 3.8 on, and those from 3.10 on with a tree that each can import usdtkit from.

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


PYENV = Path.home() / ".pyenv" / "versions"


def framed_root(version=""):
    """The root directory with a CPython that has frame pointers, or that of another version which .ci/framed-python
    fetches as well; None where it has not run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "usdtkit-test"
    root = cache / ("framed-python" + (f"-{version}" if version else ""))
    return root if (root / "complete").exists() else None


@cache
def everywhere():
    """{version: path} of all CPythons from 3.8 on, whether or not anything can be built for them."""
    roots = filter(None, (framed_root(version) for version in ("", "3.14")))
    paths = [
        *Path("/usr/bin").glob("python3.[0-9]*[0-9]"),
        *Path("/usr/local/bin").glob("python3.[0-9]*[0-9]"),
        *PYENV.glob("3.*/bin/python"),
        *(path for root in roots for path in root.glob("usr/bin/python3.*-here")),
    ]
    found = {}
    for path in map(str, paths):
        version = _ask(path)[0]
        if tuple(map(int, version.split(".")[:2])) >= (3, 8):
            found.setdefault(version, path)
    return dict(sorted(found.items(), key=lambda pair: [int(part) for part in pair[0].split(".")]))


@cache
def interpreters():
    """[(version, path)] of this interpreter and of others whose headers are here, as .ci/pythons finds them."""
    found = {tuple(_ask(sys.executable)): sys.executable}
    framed = framed_root()
    for path in [
        *Path("/usr/local/bin").glob("python3.1[0-9]"),
        *PYENV.glob("3.1[0-9]*/bin/python"),
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
