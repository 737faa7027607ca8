import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples/probes"


def test_the_example_service_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    command = [sys.executable, EXAMPLES / "service.py", "9", "0"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [
        word for number in range(1, 10) for word in (str(number), "PAID" if number < 8 else "REFUSED")
    ]


def test_its_own_tests_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", EXAMPLES, EXAMPLES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
