"""pamtrace on pamtester and the real libpam: every call with its result, and never a password."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
from commandline import json_lines, start_tracing, stop_tracing


@pytest.fixture
def trace_login(pam, spawn):
    """trace_login(password, operations, *options) -> (all that pamtrace wrote, pamtester's exit code)."""

    def trace(password, operations, *options):
        tracer = start_tracing(spawn, "pamtrace", *options)
        done = pam.login(password, *operations)
        return stop_tracing(tracer), done.returncode

    return trace


def calls(output, pam):
    """(call, result, user) of each event, all of which are of this service."""
    header, events, summary = json_lines(output)
    assert header["schema"] == "usdtkit.pamtrace/1"
    assert summary["lost"] == 0
    ours = [event for event in events if event["service"] == pam.name]
    assert len({event["pid"] for event in ours}) == 1
    assert {event["comm"] for event in ours} == {"pamtester"}
    assert all(event["latency_ns"] > 0 for event in ours)
    return [(event["call"], event["result"], event["user"]) for event in ours]


def test_a_whole_session(trace_login, pam):
    operations = ["authenticate", "acct_mgmt", "setcred(PAM_ESTABLISH_CRED)", "open_session", "close_session"]
    (output, _), code = trace_login(pam.password, operations, "--json")
    assert code == 0
    names = ["pam_start", "pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_open_session", "pam_close_session"]
    assert calls(output, pam) == [(name, "PAM_SUCCESS", pam.user) for name in [*names, "pam_end"]]
    assert pam.password not in output


def test_a_wrong_password(trace_login, pam):
    (output, _), code = trace_login("babbage-1791", ["authenticate"], "--json")
    assert code != 0
    results = {call: result for call, result, _ in calls(output, pam)}
    assert results == {"pam_start": "PAM_SUCCESS", "pam_authenticate": "PAM_AUTH_ERR", "pam_end": "PAM_SUCCESS"}
    assert "babbage-1791" not in output


@pytest.mark.parametrize("form", ["table", "--csv", "--json"])
def test_no_password_in_any_output(form, trace_login, pam):
    options = [] if form == "table" else [form]
    (output, messages), code = trace_login(pam.password, ["authenticate", "open_session"], *options)
    assert code == 0
    assert pam.name[:12] in output
    assert "pam_authenticate" in output
    assert pam.password not in output + messages


def test_the_table(trace_login, pam):
    (output, messages), _ = trace_login(pam.password, ["authenticate"])
    heading, *lines = output.splitlines()
    assert heading.split() == ["TIME", "PID", "COMM", "LAT(ms)", "CALL", "RESULT", "SERVICE", "USER"]
    rows = [line.split()[4:] for line in lines]
    names = ["pam_start", "pam_authenticate", "pam_end"]
    assert [row for row in rows if row[2] == pam.name] == [[name, "PAM_SUCCESS", pam.name, pam.user] for name in names]
    assert re.search(r"lost 0, from 1 file in \d+ process(es)?\n$", messages)


def test_a_user_that_changes_and_a_handle_that_is_older_than_the_trace(compile_c, spawn, wait_for_line):
    source = """
    #include "program.h"
    struct conversation { int (*ask)(void); void *data; };
    int pam_start(const char *, const char *, const struct conversation *, void **);
    int pam_set_item(void *, int, const void *), pam_authenticate(void *, int), pam_end(void *, int);
    static int ask(void) { return 19; }
    int main(void)
    {
        struct conversation conversation = {ask, 0};
        void *old, *new;
        if (pam_start("usdtkit-old", "ada", &conversation, &old))
            return 1;
        await_go();
        pam_end(old, 0);
        if (pam_start("usdtkit-new", "ada", &conversation, &new))
            return 1;
        pam_set_item(new, 2, "grace");
        pam_end(new, 0);
        printf("done\\n");
        return 0;
    }"""
    program = spawn([compile_c(source, "-l:libpam.so.0")])
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "pamtrace", "-p", program.pid, "--json")
    program.stdin.close()
    wait_for_line(program, "done")
    _, events, summary = json_lines(tracer.stdout.read())
    assert tracer.wait(20) == 0
    assert [(event["call"], event["service"], event["user"]) for event in events] == [
        ("pam_end", None, None),
        ("pam_start", "usdtkit-new", "ada"),
        ("pam_end", "usdtkit-new", "grace"),
    ]
    assert (summary["received"], summary["lost"]) == (4, 0)  # the change of the user is no row


def assert_known_in_children(output, service, user):
    """That every call is of this service and user, in a process and in one that it has forked."""
    _, events, summary = json_lines(output)
    ours = [event for event in events if event["service"] == service and event["user"] == user]
    begun = {event["pid"] for event in ours if event["call"] == "pam_start"}
    assert len(begun) == 1
    assert len({event["pid"] for event in ours}) > 1
    assert [event for event in events if event["comm"] == service and event["service"] is None] == []
    assert summary["lost"] == 0


@pytest.mark.parametrize("command", ["su nobody -s /bin/sh -c true", "runuser -u nobody true"])
def test_a_forked_child_has_the_names_of_the_handle(command, spawn):
    tracer = start_tracing(spawn, "pamtrace", "--json")
    subprocess.run(command.split(), check=True, timeout=60)
    assert_known_in_children(stop_tracing(tracer)[0], command.split()[0], "nobody")


def test_the_children_of_sshd(spawn, tmp_path, wait_for_line):
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "key.pub",
        "UsePAM": "yes",
        "StrictModes": "no",
        "PidFile": "none",
        "PermitRootLogin": "yes",
    }
    (tmp_path / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    server = spawn(["/usr/sbin/sshd", "-D", "-e", "-f", tmp_path / "config"], stderr=subprocess.PIPE)
    wait_for_line(server, "Server listening", stream="stderr")
    tracer = start_tracing(spawn, "pamtrace", "--json")
    trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    login = ["ssh", "-q", "-p", str(port), "-i", tmp_path / "key", *trusting, "root@127.0.0.1", "echo", "done"]
    assert subprocess.run(login, capture_output=True, text=True, check=True, timeout=60).stdout == "done\n"
    wait_for_line(server, "Disconnected from user root", stream="stderr")
    assert_known_in_children(stop_tracing(tracer)[0], "sshd", "root")
