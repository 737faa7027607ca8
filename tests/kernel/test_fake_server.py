"""A server of another user that only has the name of one: whoever traces it by that name is told."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from commandline import USDTKIT

pytestmark = pytest.mark.machine

STRANGER = 12345


def test_a_program_of_a_stranger_that_has_the_name_of_a_server(compile_c, spawn, wait_for_line, request):
    """Anybody can call a program mariadbd: it is traced, as any server of that name, but it is said whose it is."""
    place = Path(tempfile.mkdtemp(prefix="usdtkit-fake-"))
    request.addfinalizer(lambda: shutil.rmtree(place))
    place.chmod(0o755)
    fake = place / "mariadbd"
    shutil.copy(compile_c("mysql_usdt.c"), fake)
    os.chown(fake, STRANGER, STRANGER)
    server = spawn(["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", fake, "997"])
    wait_for_line(server, "ready")
    said = f"usdtkit: {fake} belongs to uid {STRANGER}, who can make its probes report anything"
    explain = [*USDTKIT, "dbslower", "mysql", "--explain"]
    assert said in subprocess.run(explain, capture_output=True, text=True).stderr
    asked_for = subprocess.run([*explain, "-p", str(server.pid)], capture_output=True, text=True)
    assert asked_for.returncode == 0 and said not in asked_for.stderr
    traced = subprocess.run([*USDTKIT, "dbslower", "mysql", "-d", "0.1"], capture_output=True, text=True)
    assert traced.returncode == 0 and said in traced.stderr
