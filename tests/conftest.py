"""What all tests share: no skip where none may be, no leak, compiled programs, and processes that end with the test."""

import hashlib
import os
import signal
import subprocess
from pathlib import Path

import leaks
import pytest
from processes import end, read_until

PROGRAMS = Path(__file__).parent / "programs"
REQUIRE_KERNEL = os.environ.get("USDTKIT_REQUIRE_KERNEL", "") not in ("", "0")
# Where tests find what an earlier run compiled, and leave what they compile: for a guest whose compilers are too slow.
LENT = os.environ.get("USDTKIT_TEST_LENT")

pytest_plugins = ["programs.mariadb", "programs.pam", "programs.postgres", "programs.shop", "programs.tls"]


def pytest_configure(config):
    """What the tests expect of their surroundings, wherever they are started."""
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # tracefs, which the peers that tests compare with need and a container or chroot may lack.
    if os.geteuid() == 0 and leaks.TRACEFS.is_dir() and not (leaks.TRACEFS / "uprobe_events").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", leaks.TRACEFS], check=REQUIRE_KERNEL)


def pytest_collection_modifyitems(items):
    for item in items:
        if PROGRAMS.parent / "kernel" in item.path.parents:
            item.add_marker("kernel")


def pytest_runtest_setup(item):
    if item.get_closest_marker("kernel") is None:
        return
    if os.geteuid() != 0:
        pytest.skip("attaching to programs needs root")
    if not Path("/sys/bus/event_source/devices/uprobe").exists():
        pytest.skip("this kernel has no uprobes")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    return refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    return refuse_skip(report)


def refuse_skip(report):
    """With USDTKIT_REQUIRE_KERNEL, a skip is a failure: on a machine that can trace, every test runs."""
    if REQUIRE_KERNEL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"USDTKIT_REQUIRE_KERNEL allows no skip: {report.longrepr[2]}"
    return report


@pytest.fixture(autouse=True)
def nothing_leaks(request):
    """A kernel test leaves no descriptor, BPF object, child process or uprobe event."""
    if request.node.get_closest_marker("kernel") is None:
        yield
        return
    before = leaks.snapshot()
    yield
    if left := leaks.new_since(before):
        pytest.fail(f"leaked: {'; '.join(left)}", pytrace=False)


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory):
    """compile_c(source, *flags) -> Path: C text, or the name of a file in tests/programs, built once a session.

    `compiler` names another than gcc, and the language is C++ for g++. Warnings are errors.
    """
    folder = Path(LENT, "programs") if LENT else tmp_path_factory.mktemp("compiled")
    folder.mkdir(exist_ok=True)

    def build(source, *flags, compiler="gcc"):
        if source.endswith(".c"):
            source = (PROGRAMS / source).read_text()
        key = hashlib.sha256("\0".join([compiler, source, *flags]).encode()).hexdigest()[:16]
        binary = folder / key
        if not binary.exists():
            language = "-xc++" if compiler == "g++" else "-xc"
            command = [compiler, language, "-", "-I", PROGRAMS, "-g", "-Wall", "-Werror", *flags, "-o", binary]
            done = subprocess.run(command, input=source, text=True, capture_output=True)
            assert done.returncode == 0, done.stderr
        return binary

    return build


@pytest.fixture
def spawn():
    """spawn(argv, **popen) -> Popen with text pipes for stdin and stdout; it and its group end with the test."""
    started = []

    def start(argv, **popen):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        process = subprocess.Popen([str(part) for part in argv], **pipes | popen)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        end(process)


@pytest.fixture
def wait_for_line():
    """wait_for_line(process, text, stream="stdout", timeout=20) -> the first line that holds the text."""
    return read_until
