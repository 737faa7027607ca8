"""Each target on its own, untraced: what it prints is what the tests of the tracer rely on."""

import subprocess

import pytest

pytestmark = pytest.mark.machine


def run(*argv):
    return subprocess.run(
        [*map(str, argv)], input="go\n", text=True, capture_output=True, check=True
    ).stdout.splitlines()


def test_mysql_usdt_counts_its_queries(compile_c):
    assert run(compile_c("mysql_usdt.c"), 997) == ["ready", "queries 997 traced 0"]


def test_mysql_usdt_carries_the_probes_with_their_semaphores(compile_c):
    notes = subprocess.run(["readelf", "-n", compile_c("mysql_usdt.c")], capture_output=True, text=True).stdout
    assert notes.count("Provider: mysql") == 3
    assert notes.count("Semaphore: 0x0000000000000000") == 0


def test_resolver_calls_every_lookup(compile_c):
    calls = dict.fromkeys(line.split()[0] for line in run(compile_c("resolver.c"))[1:])
    forms = [
        "gethostbyname",
        "gethostbyname2",
        "gethostbyname_r",
        "gethostbyname2_r",
        "gethostbyaddr",
        "gethostbyaddr_r",
    ]
    assert list(calls) == ["getaddrinfo", *forms, "getnameinfo"]


def test_resolver_needs_no_network(compile_c):
    results = [line.split()[1:] for line in run(compile_c("resolver.c"))[1:]]
    assert all(result == "0" for host, result in results if not host.endswith(".invalid"))
    assert ["no.such.host.invalid", "-2"] in results


def test_recursive_measures_every_level(compile_c):
    calls = [tuple(map(int, line.split())) for line in run(compile_c("recursive.c"), 7, 3)[1:]]
    assert [depth for depth, _ in calls] == [1, 2, 3, 4, 5, 6, 7] * 3
    assert all(ns >= depth * (depth + 1) // 2 * 10_000 for depth, ns in calls)


def test_longjmp_leaves_calls_without_a_return(compile_c):
    assert run(compile_c("longjmp.c"), 997, 10)[1:] == [
        "outer entries 997 returns 997",
        "middle entries 997 returns 898",
        "inner entries 997 returns 898",
    ]


def test_threads_all_work(compile_c):
    lines = run(compile_c("threads.c", "-pthread"), 10, 997)[1:]
    assert [line.split()[-1] for line in lines] == ["997"] * 10
    assert len({line.split()[3] for line in lines}) == 10


def test_mariadb_answers_and_counts(mariadb):
    assert mariadb.binary.name == "mariadbd"
    before, *ones, after = mariadb.query(
        "show status like 'Questions'", *["select 1"] * 97, "show status like 'Questions'"
    )
    assert ones == ["1"] * 97
    assert int(after.split()[1]) - int(before.split()[1]) == 98


def test_pam_takes_the_right_password_only(pam):
    assert pam.login(pam.password, "authenticate", "open_session", "close_session").returncode == 0
    wrong = pam.login("wrong", "authenticate")
    assert wrong.returncode == 1
    assert "Authentication failure" in wrong.stderr
