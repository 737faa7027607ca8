"""What .ci/dist builds: whole, the same from every directory, stripped, for glibc 2.34 and later, with living links."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = "https://github.com/usdtkit/usdtkit"
SECONDS_ON_TWO_CORES = 20


@pytest.fixture(scope="module")
def wheel(release):
    [file] = release.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    """The source distribution, unpacked."""
    place = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, place)
    [tree] = place.iterdir()
    return tree


def test_the_source_distribution_has_every_file_as_it_is_in_the_repository(unpacked):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True)
    files = [name for name in listed.stdout.splitlines() if not (ROOT / name).is_symlink()]
    differing = [
        name
        for name in files
        if (unpacked / name).read_bytes() != (ROOT / name).read_bytes()
        or os.access(unpacked / name, os.X_OK) != os.access(ROOT / name, os.X_OK)
    ]
    assert len(files) > 500 and not differing


def test_the_wheel_is_for_manylinux_and_has_the_programs(wheel):
    assert re.search(r"-manylinux_2_(1\d|2\d|3[0-4])_x86_64\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".so")]
        assert len(modules) >= 4
        assert not [name for name in modules if b".debug_info" in archive.read(name)]
        bundle = zipfile.ZipFile(archive.open("usdtkit/bpf/shipped.bundle"))
        used_by = json.loads(bundle.read("manifest.json"))["used_by"]
    tools = {line.split()[0] for lines in used_by.values() for line in lines}
    assert {"gethostlatency", "funccount", "memleak"} <= tools


def test_the_same_wheel_comes_from_another_directory(sdist, unpacked, tmp_path):
    """Built without isolation, because all that differs is to be the directory."""
    digests = set()
    for place in ("a", "directory/elsewhere"):
        tree = tmp_path / place
        shutil.copytree(unpacked, tree)
        command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tree / "built", tree]
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "USDTKIT_PROGRAMS": "1"}
        subprocess.run([ROOT / ".venv/bin/python", "-m", *command], check=True, env=environment, capture_output=True)
        [built] = (tree / "built").glob("*.whl")
        digests.add(hashlib.sha256(built.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_build_for_an_application_takes_seconds_and_no_bcc(sdist, tmp_path):
    before = os.times()
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, sdist]
    subprocess.run([ROOT / ".venv/bin/python", "-m", *command], check=True, capture_output=True)
    used = os.times()
    # What the processors did, because how long that takes depends on what else they have to do.
    processor_s = used.children_user + used.children_system - before.children_user - before.children_system
    assert processor_s < 2 * SECONDS_ON_TWO_CORES
    with zipfile.ZipFile(*tmp_path.glob("*.whl")) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".bundle")]


def test_every_link_of_the_description_leads_into_the_repository(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    description = metadata.get_payload()
    links = re.findall(r"\]\(([^)]+)\)", description) + [
        url.partition(", ")[2] for url in metadata.get_all("Project-URL")
    ]
    assert len(links) > 30
    assert not [link for link in links if missing(link)]


def missing(link):
    """Whether nothing of this repository is behind a link."""
    path, _, anchor = link.removeprefix(HOME).partition("#")
    if not link.startswith(HOME):
        return True
    if path in ("", "/issues"):
        return False
    file = ROOT / re.sub(r"^/(blob|tree)/main/", "", path)
    headings = re.findall(r"^#+ (.*)", file.read_text(), re.M) if anchor and file.is_file() else []
    known = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    return not file.exists() or (bool(anchor) and anchor not in known)
