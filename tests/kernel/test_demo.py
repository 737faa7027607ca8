"""The demo, which a newcomer runs first: every order of the example service is seen, by us and by bpftrace."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.machine

DEMO = Path(__file__).parents[2] / "examples" / "shop" / "demo.py"


def test_the_demo_sees_every_order():
    done = subprocess.run([sys.executable, DEMO, "--orders", "997"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fired 997, received 997, lost 0" in done.stdout
    assert "@orders: 97" in done.stdout
    assert done.stderr == ""
