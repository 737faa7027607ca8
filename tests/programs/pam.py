"""A real PAM service with a password, and pamtester to log in to it: pytest fixture `pam`."""

import os
import subprocess
from pathlib import Path

import pytest

USER, PASSWORD = "ada", "lovelace-1815"

# pam_exec hands the password to a script; a refusal then comes from pam_deny, as PAM_AUTH_ERR.
STACK = """\
auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {check}
auth requisite pam_deny.so
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
"""


class Service:
    """`name` of the service, `user` and the right `password`."""

    user = USER
    password = PASSWORD

    def __init__(self, name):
        self.name = name

    def argv(self, *operations):
        """The command that runs these operations (authenticate, acct_mgmt, open_session, …) and asks for a password."""
        return ["pamtester", self.name, self.user, *operations]

    def login(self, password, *operations):
        """Run it with this password; the finished process, with its return code and output."""
        return subprocess.run(self.argv(*operations), input=f"{password}\n", text=True, capture_output=True)


@pytest.fixture
def pam(tmp_path):
    check = tmp_path / "check"
    check.write_text(f'#!/bin/sh\n[ "$(tr -d "\\0")" = "{PASSWORD}" ]\n')
    check.chmod(0o700)
    service = Path(f"/etc/pam.d/usdtkit-test-{os.getpid()}")
    with service.open("x") as file:
        file.write(STACK.format(check=check))
    try:
        yield Service(service.name)
    finally:
        service.unlink()
