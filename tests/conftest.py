"""Fixtures and checks for all tests: required tests are not skipped, nothing leaks, programs are compiled once, and
processes end with the test."""

import functools
import gc
import hashlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

# A failed assertion in a helper module is then explained with its values, as one in a test is.
pytest.register_assert_rewrite(*{path.stem for path in Path(__file__).parent.glob("*.py")} - {"conftest"}, "programs")

import leaks  # noqa: E402
from processes import end, read_until  # noqa: E402

PROGRAMS = Path(__file__).parent / "programs"
REQUIRE_KERNEL = os.environ.get("USDTKIT_REQUIRE_KERNEL", "") not in ("", "0")
# Where tests find what an earlier run compiled, and leave what they compile: for a guest whose compilers are too slow.
LENT = os.environ.get("USDTKIT_TEST_LENT")

# In the files whose tests cannot run side by side; see pytest_xdist_make_scheduler.
MACHINE = re.compile(r"^pytestmark = .*\bpytest\.mark\.machine\b", re.MULTILINE)
IN_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ

pytest_plugins = [
    *(
        "programs.calls",
        "programs.django",
        "programs.golang",
        "programs.mariadb",
        "programs.pam",
        "programs.postgres",
        "programs.redis",
        "programs.shop",
    ),
    *("programs.tls", "unharmed"),
]


def pytest_configure(config):
    """Set up the environment that the tests expect, wherever they are started."""
    # A shell's background job ignores Ctrl-C, and a command of nohup ignores SIGHUP; so would all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # tracefs, which the peers that tests compare with need and a container or chroot may lack.
    if os.geteuid() == 0 and leaks.TRACEFS.is_dir() and not (leaks.TRACEFS / "uprobe_events").exists():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", leaks.TRACEFS], check=REQUIRE_KERNEL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run the tests of a file one after another, and so those of all files that are marked `machine`.

    The marked tests look at whatever runs on this machine, or are looked at: services and servers by their name,
    languages, and libraries that every process uses. The process that schedules sees names of tests and no markers,
    which is why it looks for the marker in the text of the file.
    """
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def scope_of(file):
        return "machine" if MACHINE.search((config.rootpath / file).read_text()) else file

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid.partition("::")[0])

    return Files(config, log)


def pytest_collection_finish():
    """Objects that exist before the first test are not garbage of any test, and searching them takes long."""
    gc.collect()
    gc.freeze()


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
def nothing_leaks(request, tmp_path_factory):
    """A kernel test leaves no descriptor, BPF object, child process or uprobe event."""
    if request.node.get_closest_marker("kernel") is None:
        yield
        return
    run = tmp_path_factory.getbasetemp()
    before, events = leaks.snapshot(), leaks.uprobe_events(run)
    yield
    left = leaks.new_since(before)
    if not IN_PARALLEL:  # else they may be those of another test
        left += sorted(leaks.uprobe_events(run) - events)
    if left:
        pytest.fail(f"leaked: {'; '.join(left)}", pytrace=False)


def pytest_sessionstart(session):
    session.run = session.config._tmp_path_factory.getbasetemp()  # the fixture that gives it is not there yet
    session.uprobe_events = leaks.uprobe_events(session.run)


def pytest_sessionfinish(session):
    """No test has left a uprobe event, in whichever process it ran."""
    if not IN_PARALLEL and (left := leaks.uprobe_events(session.run) - session.uprobe_events):
        print(f"\nleaked: {'; '.join(sorted(left))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """compiled(command, source) -> Path: what `command -o PATH` makes of the source on its standard input.

    Built once a session. `file`: a source that the command reads itself.
    """
    # Of each process that runs tests its own: one traces whoever runs a file.
    own = f"programs{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    folder = Path(LENT, own) if LENT else tmp_path_factory.mktemp(own)
    folder.mkdir(exist_ok=True)

    def build(command, source, file=None):
        words = [str(word) for word in command]
        key = hashlib.sha256("\0".join([*words, source]).encode()).hexdigest()[:16]
        binary = folder / key
        if not binary.exists():
            last = [] if file is None else [str(file)]
            done = subprocess.run([*words, "-o", str(binary), *last], input=source, text=True, capture_output=True)
            assert done.returncode == 0, done.stderr
        return binary

    return build


@pytest.fixture(scope="session")
def compile_c(compiled):
    """compile_c(source, *flags) -> Path: C text, or the name of a file in tests/programs, built once a session.

    `compiler` names another than gcc, and the language is C++ for g++. Warnings are errors.
    """

    def build(source, *flags, compiler="gcc"):
        if source.endswith((".c", ".cc")):
            source = (PROGRAMS / source).read_text()
        language = "-xc++" if compiler == "g++" else "-xc"
        return compiled([compiler, language, "-", "-I", PROGRAMS, "-g", "-Wall", "-Werror", *flags], source)

    return build


@pytest.fixture(scope="session")
def compile_file(compiled):
    """compile_file(command, file) -> Path: for compilers that want a file, such as those of Rust and Go."""
    return lambda command, file: compiled(command, file.read_text(), file)


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
