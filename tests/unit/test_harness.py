"""The test harness itself: it finds leaks and forbidden skips, in a pytest of its own, and ends what it started."""

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import leaks
import pytest
from processes import end

TESTS = Path(__file__).parents[1]


@pytest.fixture
def run_tests(tmp_path):
    """Run these texts as test modules under our conftest; pytest's output."""

    def run(*texts, require_kernel="1", options=()):
        for number, text in enumerate(texts):
            (tmp_path / f"test_inner_{number}.py").write_text(f"import os, pytest, subprocess\n{text}")
        command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rA"]
        ours = {"PYTHONPATH": str(TESTS), "USDTKIT_REQUIRE_KERNEL": require_kernel, "COLUMNS": "200"}
        command += ["-o", "markers=kernel: attaches\nmachine: looks at all", *options]
        alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
        return subprocess.run(command, cwd=tmp_path, env=alone | ours, capture_output=True, text=True).stdout

    return run


LEAKS = """
import ctypes, struct
pytestmark = pytest.mark.kernel

def bpf_array():
    attributes = struct.pack("IIII", 2, 4, 8, 1)  # BPF_MAP_TYPE_ARRAY; sizes of key and value; entries
    syscall = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    fd = ctypes.CDLL(None).syscall(syscall, 0, attributes, len(attributes))
    assert fd > 0
    return fd

def uprobe_event(line):
    fd = os.open("/sys/kernel/tracing/uprobe_events", os.O_WRONLY | os.O_APPEND)
    os.write(fd, line.encode())
    os.close(fd)

@pytest.fixture(scope="module")
def forgotten():
    name = f"usdtkit_harness/forgotten_{os.getpid()}"
    yield name
    uprobe_event(f"-:{name}")

def test_file(): os.open("/etc/hostname", os.O_RDONLY)
def test_map(): bpf_array()
def test_child(): globals().update(kept=subprocess.Popen(["true"]))
def test_event(forgotten): uprobe_event(f"p:{forgotten} /bin/true:0x0")
def test_clean():
    open("/etc/hostname").close()
    os.close(bpf_array())
    subprocess.run(["true"])
@pytest.mark.skip
def test_uncounted(): pass
"""


@pytest.mark.kernel
def test_each_leak_of_a_kernel_test_is_found(run_tests):
    output = run_tests(LEAKS, require_kernel="")
    found = dict(re.findall(r"^ERROR test_inner_0.py::test_(\w+) - Failed: leaked: (.*)$", output, re.M))
    assert found.keys() == {"file", "map", "child", "event"}, output
    for test, left in (("file", "/etc/hostname"), ("map", "anon_inode:bpf-map"), ("event", "uprobe event p:usdtkit")):
        assert left in found[test]
    assert "5 passed, 1 skipped, 4 errors" in output


SKIPS = (
    "@pytest.mark.skip(reason='no luck')\ndef test_mark(): pass",
    "def test_call(): pytest.skip('no luck')",
    "@pytest.fixture\ndef f(): pytest.skip('no luck')\ndef test_fixture(f): pass",
    "@pytest.mark.xfail\ndef test_expected_failure(): assert 0",
)
SKIPPED_MODULE = "pytest.skip('no luck', allow_module_level=True)"


def test_skips_fail_where_the_kernel_is_required(run_tests):
    output = run_tests(*SKIPS)
    refused = re.findall(
        r"^(?:FAILED|ERROR) .*test_(\w+) - USDTKIT_REQUIRE_KERNEL allows no skip: .*no luck", output, re.M
    )
    assert sorted(refused) == ["call", "fixture", "mark"]
    assert "1 failed, 1 xfailed, 2 errors in" in output


def test_a_skipped_module_fails_where_the_kernel_is_required(run_tests):
    output = run_tests(SKIPPED_MODULE)
    assert "USDTKIT_REQUIRE_KERNEL allows no skip: Skipped: no luck" in output
    assert "1 error in" in output


def test_skips_are_skips_elsewhere(run_tests):
    assert "4 skipped, 1 xfailed" in run_tests(*SKIPS, SKIPPED_MODULE, require_kernel="")


def test_a_failed_assertion_of_a_helper_shows_its_values(run_tests):
    output = run_tests(
        """
import commandline
def test_it():
    done = subprocess.CompletedProcess([], 2, "output", "usdtkit: message")
    commandline.assert_explained(done, 2)
"""
    )
    assert "assert 'output' == ''" in output, output


def test_files_that_look_at_the_machine_run_in_one_process(run_tests):
    """Of the others each file has a process for its tests, and both processes get some."""
    shown = "print('ran', __name__, os.environ['PYTEST_XDIST_WORKER'])"
    text = f"def test_one(): {shown}\ndef test_two(): {shown}\n"
    marked = f"pytestmark = [pytest.mark.machine]\n{text}"
    output = run_tests(marked, text, marked, text, marked, options=["-n", "2"])
    ran = {}
    for module, worker in re.findall(r"^ran test_inner_(\d) (\w+)$", output, re.M):
        ran.setdefault(int(module), []).append(worker)
    assert {module: len(workers) for module, workers in ran.items()} == dict.fromkeys(range(5), 2), output
    assert len({*ran[0], *ran[2], *ran[4]}) == len({*ran[1]}) == len({*ran[3]}) == 1, output
    assert len({worker for workers in ran.values() for worker in workers}) == 2, output


def test_uprobe_events_of_others_may_have_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(leaks, "TRACEFS", tmp_path)
    run = tmp_path / "runs" / "own"
    lines = [b"p:one/event /tmp/caf\xe9:0x0", b"p:two/event %s/lib:0x0" % bytes(run)]
    (tmp_path / "uprobe_events").write_bytes(
        b"\n".join([*lines, b"p:three/event %s/other/lib:0x0\n" % bytes(run.parent)])
    )
    found = leaks.uprobe_events(run)
    assert found == {r"uprobe event p:one/event /tmp/caf\xe9:0x0", f"uprobe event p:two/event {run}/lib:0x0"}


def test_a_process_ends_with_its_children(spawn, wait_for_line):
    process = spawn(["sh", "-c", "sleep 997 & echo started $!; wait"])
    child = os.pidfd_open(int(wait_for_line(process, "started").split()[1]))
    try:
        end(process)
        assert select.select([child], [], [], 10)[0] == [child]  # readable once it is dead
    finally:
        os.close(child)
    assert process.returncode == -15


def test_waiting_for_a_line_that_never_comes_fails(spawn, wait_for_line):
    process = spawn(["sh", "-c", "echo something else; sleep 997"])
    with pytest.raises(pytest.fail.Exception, match="something else"):
        wait_for_line(process, "ready", timeout=0.2)
    assert process.wait() == -9
