"""Go programs for tests: pytest fixtures `build_go`, with the compiler of the distribution or the newest one, and
`shipped`, which gives what others have built.

Input: flags of `go build`. Output: the path of the program in tests/programs/market, built once a session. What the
compilers make of the standard library is kept in a cache of the user's.
"""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from programs import npm

MARKET = Path(__file__).parent / "market"
CACHE = Path("~/.cache/usdtkit-test/go").expanduser()
DEBIAN = "go"
NEWEST = str(Path(sysconfig.get_path("purelib")) / "go" / "bin" / "go")
SETTINGS = {
    **os.environ,
    "GOCACHE": str(CACHE),
    "GOFLAGS": "-buildvcs=false",
    "GOTOOLCHAIN": "local",
    "GOENV": "off",
    "GO111MODULE": "on",
}
STRIPPED = "-ldflags=-s -w"


def go(*words, compiler=DEBIAN, cgo=False, **options):
    """Run a command of Go; its standard output."""
    settings = {**SETTINGS, "CGO_ENABLED": str(int(cgo))}
    done = subprocess.run([compiler, *map(str, words)], text=True, capture_output=True, env=settings, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def build_go(tmp_path_factory):
    """build_go(*flags, compiler=DEBIAN, cgo=False) -> Path."""
    made = {}

    def build(*flags, compiler=DEBIAN, cgo=False):
        key = flags, compiler, cgo
        if key not in made:
            path = tmp_path_factory.mktemp("go") / "market"
            go("build", "-o", path, *flags, compiler=compiler, cgo=cgo, cwd=MARKET)
            made[key] = path
        return made[key]

    return build


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """shipped(package) -> Path: the esbuild in a package of npm, built with the Go of its day, and without symbols."""
    made = {}

    def get(package):
        if package not in made:
            made[package] = npm.unpack(package, tmp_path_factory.mktemp("esbuild")) / "bin/esbuild"
        return made[package]

    return get
