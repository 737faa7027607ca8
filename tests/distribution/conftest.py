"""What the tests of the distribution install, and where: a release, and bare machines.

The release is built once by .ci/dist. Machines are chroots of three suites of Debian (.ci/machine), whose package index
is a directory: nothing there reaches PyPI, so what is missing from a wheel, or needs a compiler to install, fails.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITES = {"bookworm": "3.11", "trixie": "3.13", "forky": "3.14"}
# Where the wheel for a suite is built, and the Debian package.
BUILDERS = {"trixie": "/packager", "forky": "/builder"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "usdtkit-test"
# What pip, pipx and uv are told where they would ask PyPI.
INDEX = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels", "UV_NO_INDEX=1", "UV_FIND_LINKS=/wheels", "UV_OFFLINE=1")
PLATFORMS = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 24, 28, 34)]


class Machine:
    """A bare Debian, which keeps what is changed in it until the test session ends."""

    def __init__(self, suite, changes, layer=""):
        self.suite, self.changes, self.layer = suite, changes, layer

    @property
    def files(self):
        """Where the files appear that were made or changed in it; not to be written to while a command runs."""
        return self.changes / "files"

    @property
    def bare(self):
        """The files that it began with."""
        return CACHE / "machines" / self.suite / "bare"

    def run(self, *command, user=None, code=0, **options):
        """Run a command, a shell script if it is one word; a CompletedProcess with text."""
        words = [str(word) for word in command]
        words = ["sh", "-ec", words[0]] if len(words) == 1 else words
        if user:
            home = f"/home/{user}"
            path = f"{home}/.local/bin:/usr/local/bin:/usr/bin:/bin"
            words = ["runuser", "-u", user, "--", "env", "-C", home, f"HOME={home}", f"PATH={path}", *words]
        done = subprocess.run(
            [ROOT / ".ci" / "machine", self.suite + self.layer, self.changes, "env", *INDEX, *words],
            **{"text": True, "capture_output": True, "timeout": 900, "stdin": subprocess.DEVNULL} | options,
        )
        said = done.stdout[-4000:] + done.stderr[-4000:]
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{said}"
        return done


@pytest.fixture(scope="session", autouse=True)
def machines_are_made(tmp_path_factory):
    """Those that are in no cache yet are made side by side, because most of it is waiting for the mirror."""
    place = tmp_path_factory.mktemp("made")
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(Machine(each, place / each, BUILDERS.get(each, "")).run, "true") for each in SUITES]
    assert all(each.result() for each in made)


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """bare(suite, layer="") -> a new machine, of which nothing is kept; see .ci/machine."""
    made = []

    def make(suite, layer=""):
        made.append(Machine(suite, tmp_path_factory.mktemp(suite), layer))
        return made[-1]

    yield make
    for machine in made:
        shutil.rmtree(machine.changes)


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """The directory that .ci/dist has filled, now or before ($RELEASE): a source distribution, and a wheel."""
    if "RELEASE" in os.environ:
        return Path(os.environ["RELEASE"])
    place = tmp_path_factory.mktemp("release")
    done = subprocess.run([ROOT / ".ci" / "dist", place], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="session")
def sdist(release):
    [file] = release.glob("*.tar.gz")
    return file


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A directory with what usdtkit needs and what builds it, from PyPI, for the Pythons of all suites."""
    place = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", place]
    subprocess.run([*pip, *PLATFORMS, "pip", "setuptools", "wheel", "pycparser", "uv", "packaging"], check=True)
    for version in SUITES.values():
        subprocess.run([*pip, f"--python-version={version}", *PLATFORMS, "cffi", "pycxxfilt"], check=True)
    return place


@pytest.fixture(scope="session", params=SUITES)
def machine(request, bare, release, sdist, wheels):
    """A bare machine with a user called ada, who may use sudo, and a directory /wheels that has the release for it.

    The wheel for another Python than ours is built from the source distribution by that Python's suite.
    """
    suite = request.param
    made = bare(suite)
    shutil.copytree(wheels, made.files / "wheels")
    (made.files / "wheels").chmod(0o755)
    if SUITES[suite] == f"{sys.version_info[0]}.{sys.version_info[1]}":
        [ours] = release.glob("*.whl")
    else:
        [ours] = build_wheel(bare(suite, BUILDERS[suite]), sdist, wheels)
    shutil.copy(ours, made.files / "wheels")
    made.run(
        "useradd --create-home --shell /bin/bash ada; echo 'ada ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ada; "
        "python3 -m zipfile -e /wheels/uv-*.whl /tmp/uv; install /tmp/uv/*.data/scripts/uv /usr/local/bin"
    )
    absent = made.run("for each in cc gcc clang; do ! command -v $each; done; ! python3 -c 'import bcc' 2>&1")
    assert "No module named 'bcc'" in absent.stdout
    return made


def build_wheel(builder, sdist, wheels):
    """The wheels that pip builds of the source distribution on a machine with a compiler."""
    shutil.copytree(wheels, builder.files / "wheels")
    shutil.copy(sdist, builder.files / "wheels")
    builder.run(
        "python3 -m venv /tmp/env; cd /tmp; export USDTKIT_PROGRAMS=1; "
        f"/tmp/env/bin/pip wheel --no-deps --wheel-dir /built /wheels/{sdist.name}"
    )
    return builder.files.glob("built/*.whl")
