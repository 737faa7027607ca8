"""The wheel for aarch64: cross-built from the source distribution, and run by Debian's Python for arm64 under QEMU."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PACKAGES = [
    *("libc6", "libexpat1", "libffi8", "libgcc-s1", "zlib1g", f"{PYTHON}-minimal"),
    *(f"lib{PYTHON}-{part}" for part in ("minimal", "stdlib", "dev")),
]
FIRES = """
import platform, sys
sys.path.insert(0, sys.argv[1])
import usdtkit._events, usdtkit._lines, usdtkit._python, usdtkit._shim
from usdtkit import Provider

shop = Provider("armshop")
order_start = shop.probe("order__start", order_id="u64", customer="str")
shop.load()
for number in range(997):
    order_start(number, "ada")
mapped = [line for line in open("/proc/self/maps") if "/armshop-" in line]
print(platform.machine(), order_start.enabled, order_start.dropped, len(mapped) > 0)
"""


@pytest.fixture(scope="module")
def arm64(bare):
    """A root directory with Debian 12's Python for arm64, which is only unpacked."""
    machine = bare("bookworm")
    names = " ".join(f"{name}:arm64" for name in PACKAGES)
    machine.run(
        "dpkg --add-architecture arm64; apt-get update --quiet=2; mkdir /debs /arm64; cd /debs; "
        f"apt-get download --quiet=2 --option APT::Sandbox::User=root {names}; "
        "for each in *.deb; do dpkg-deb --extract $each /arm64; done"
    )
    return machine.files / "arm64"


def test_the_wheel_runs_on_aarch64(arm64, sdist, tmp_path):
    subprocess.run([ROOT / ".ci" / "dist-aarch64", sdist, arm64, tmp_path / "dist"], check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    assert re.search(r"-manylinux_2_(1\d|2\d|3[0-4])_aarch64\.whl$", wheel.name)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--platform=manylinux2014_aarch64", "--dest", tmp_path, "cffi"], check=True)
    packages = arm64 / "packages"  # within QEMU's root directory, where /packages then is
    for file in (wheel, *tmp_path.glob("cffi-*.whl")):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(packages)
    command = ["qemu-aarch64", "-L", arm64, "-E", f"USDTKIT_DIR={tmp_path}/files", arm64 / "usr/bin" / PYTHON]
    done = subprocess.run([*command, "-I", "-c", FIRES, packages], text=True, capture_output=True)
    shutil.rmtree(packages)
    assert (done.stdout, done.returncode) == ("aarch64 False 0 True\n", 0), done.stderr
