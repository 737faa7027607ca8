"""The source distribution has every file of the repository, and what is built from it is described by one version."""

import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit.version import VERSION

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """What setuptools makes of this tree without building anything: the directory usdtkit.egg-info."""
    place = tmp_path_factory.mktemp("described")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", place]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0 and "absent from the `packages`" not in done.stderr, done.stderr
    return place / "usdtkit.egg-info"


def test_it_has_every_file_of_the_repository(described):
    contained = set((described / "SOURCES.txt").read_text().splitlines())
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True)
    # A directory that is linked in is there as a directory.
    files = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert len(files) > 500
    assert files - contained == set()


def test_the_version_is_that_of_the_package(described):
    metadata = (described / "PKG-INFO").read_text()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert metadata.count("\nProject-URL: ") == 5
