"""`usdtkit doctor` as root, as nobody, and without bcc."""

import json
import os
import subprocess

import pytest
from commandline import NOBODY, WITHOUT_BCC, assert_described, usdtkit

FEATURES = {
    *("uprobes", "semaphores", "bpf", "ring buffer", "cookies", "bpf_loop", "sleepable", "uprobe_multi"),
    *("uprobe session", "compiler", "programs", "providers"),
}


def rows(*arguments, code=0, **options):
    """The rows of --json by name."""
    done = usdtkit("doctor", "--json", *arguments, **options)
    assert done.returncode == code, done.stderr
    header, *found = map(json.loads, done.stdout.splitlines())
    assert header["schema"] == "usdtkit.doctor/1"
    assert_described("usdtkit.doctor/1", found)
    assert all(row["fix"] for row in found if row["state"] != "found")
    return {row["name"]: row for row in found}


def test_on_this_machine_all_that_is_needed_is_there():
    found = rows()
    assert found.keys() >= FEATURES
    assert {found[name]["state"] for name in ("uprobes", "bpf", "ring buffer", "compiler")} == {"found"}
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import bcc; print(bcc.__version__)"], text=True, capture_output=True
    ).stdout.strip()
    assert f"bcc {version}" in found["compiler"]["detail"]


def test_the_table_says_the_same():
    done = usdtkit("doctor")
    assert done.returncode == 0
    states = {line[:16].strip(): line[17:25].strip() for line in done.stdout.splitlines() if line[0] != " "}
    assert states == {name: row["state"] for name, row in rows().items()}


def test_as_nobody():
    found = rows(prefix=NOBODY, code=3)
    assert found["bpf"]["state"] == "missing"
    for name in ("ring buffer", "cookies", "bpf_loop", "uprobe_multi"):
        assert found[name]["state"] == "unknown"
    assert {"root" in found[name]["fix"] for name in ("bpf", "ring buffer", "bpf_loop", "uprobe_multi")} == {True}


def test_a_directory_that_cannot_even_be_looked_at():
    found = rows(env=os.environ | {"USDTKIT_DIR": f"/{'long' * 99}"})
    assert found["providers"]["state"] == "found"


def test_without_bcc(tmp_path):
    """Then programs are translated; those of a bundle are counted once they are added."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    empty = os.environ | {"USDTKIT_CACHE": str(cache)}
    found = rows(prefix=WITHOUT_BCC, env=empty)
    assert (found["compiler"]["state"], found["programs"]["state"]) == ("missing", "found")
    assert found["programs"]["detail"] == "they are translated when they are needed"
    assert "apt install python3-bpfcc" in found["compiler"]["fix"]
    assert {row["state"] for name, row in found.items() if name != "compiler"} == {"found"}
    bundle = tmp_path / "tools.bundle"
    packed = usdtkit("bundle", "gethostlatency", "pamtrace", "-o", bundle)
    count = int(packed.stdout.split()[1])
    assert count > 1 and usdtkit("cache", "--add", bundle, env=empty).returncode == 0
    found = rows(prefix=WITHOUT_BCC, env=empty)
    assert found["programs"]["detail"].startswith(f"{count} in the cache {cache}, ")


@pytest.mark.parametrize("prefix", [NOBODY, WITHOUT_BCC], ids=["nobody", "no bcc"])
def test_the_table_says_how_to_fix_it(prefix):
    done = usdtkit("doctor", prefix=prefix)
    lines = done.stdout.splitlines()
    absent = [at for at, line in enumerate(lines) if line[17:25].strip() in ("missing", "unknown")]
    assert absent
    assert all(lines[at + 1].strip().startswith("fix: ") for at in absent)
    assert done.stderr == ""
