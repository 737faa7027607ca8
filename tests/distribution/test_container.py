"""The image that Containerfile describes: built from the source distribution, on Debian, and able to trace."""

import shutil
import subprocess

import pytest
from processes import among_own_mounts

BUILT_ON = "localhost/debian"


@pytest.fixture
def buildah(tmp_path):
    """buildah(*arguments) -> its output. Images are kept in a directory of the test."""
    storage = ["--root", tmp_path / "images", "--runroot", tmp_path / "run", "--storage-driver", "overlay"]

    def run(*arguments):
        done = subprocess.run(["buildah", *storage, *map(str, arguments)], text=True, capture_output=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    yield run
    run("rm", "--all")
    run("rmi", "--all", "--force")


def test_the_image_traces(buildah, bare, sdist, wheels, tmp_path):
    shutil.unpack_archive(sdist, tmp_path)
    [tree] = tmp_path.glob("usdtkit-*")
    (tmp_path / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    base = buildah("from", "scratch")
    buildah("add", "--quiet", base, bare("trixie").bare, "/")
    buildah("commit", "--quiet", base, BUILT_ON)
    volumes = [f"--volume={wheels}:/wheels:ro", f"--volume={tmp_path / 'pip.conf'}:/etc/pip.conf:ro"]
    buildah("bud", "--isolation=chroot", *volumes, f"--build-arg=BASE={BUILT_ON}", "--tag=usdtkit", tree)
    container = buildah("from", "localhost/usdtkit")
    # Not by `buildah run`, which gives no container CAP_BPF.
    script = 'for each in proc sys dev; do mount --rbind /$each "$0/$each"; done; exec chroot "$0" usdtkit doctor'
    command = [*among_own_mounts(script), buildah("mount", container)]
    said = subprocess.run(command, text=True, capture_output=True, check=True).stdout
    features = dict(line.split()[:2] for line in said.splitlines() if not line.startswith(" "))
    assert features["bpf"] == features["uprobes"] == features["providers"] == "found"
    assert features["compiler"] == "missing"
