"""libcalls on a C program and on Debian's Python: every call, and every error by its name."""

import csv
import json
import os
import sys

import pytest
from commandline import assert_explained, end_of_tracing, go, json_lines, start_tracing, usdtkit

pytestmark = pytest.mark.machine

SOURCE = """
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <unistd.h>
#include "program.h"
static long seen;
int main(void) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *list;
    await_go();
    for (int i = 0; i < 97; i++)
        close(open("/dev/null", O_RDONLY));
    for (int i = 0; i < 31; i++)
        if (open("/nowhere", O_RDONLY) < 0)
            seen += errno;
    for (int i = 0; i < 13; i++)
        if (open("/", O_WRONLY) < 0)
            seen += errno;
    for (int i = 0; i < 7; i++)
        if (open("/nowhere", O_RDONLY) < 0)
            seen++;
    for (int i = 0; i < 11; i++)
        if (!fopen("/nowhere", "r"))
            seen += errno;
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < 19; i++)
        seen += pthread_mutex_trylock(&mutex);
    for (int i = 0; i < 3; i++)
        seen += getaddrinfo("no number", 0, &hints, &list);
    printf("seen %ld\\n", seen);
    return 0;
}"""
FUNCTIONS = ["open", "open64", "fopen*", "pthread_mutex_trylock", "getaddrinfo", "close"]


@pytest.mark.parametrize("form", ["--json", "--csv", "table"])
def test_calls_and_errors(form, compile_c, ready, spawn, wait_for_line):
    program = ready([compile_c(SOURCE, "-pthread")])
    options = [] if form == "table" else [form]
    tracer = start_tracing(spawn, "libcalls", *FUNCTIONS, "-p", str(program.pid), *options)
    go(program)
    wait_for_line(program, "seen")
    output, messages = end_of_tracing(tracer)
    if form == "--json":
        header, lines, summary = json_lines(output)
        assert header["schema"] == "usdtkit.libcalls/1"
        assert (summary["lost"], summary["full"], summary["unreadable"]) == (0, 0, 0)
        assert all(line["total_ns"] >= line["average_ns"] > 0 for line in lines)
        rows = {line["function"]: (line["count"], line["errors"]) for line in lines}
    elif form == "--csv":
        found = csv.DictReader(output.splitlines())
        rows = {row["function"]: (int(row["count"]), json.loads(row["errors"])) for row in found}
    else:
        _, heading, *lines = output.splitlines()
        assert heading.split() == ["COUNT", "TOTAL(ms)", "AVG(us)", "FUNCTION", "ERRORS"]
        cells = [line.split(maxsplit=4) for line in lines]
        rows = {
            row[3]: (int(row[0]), {name: int(n) for name, n in (pair.split(":") for pair in " ".join(row[4:]).split())})
            for row in cells
        }
        assert "lost 0" in messages
    assert rows.pop("getaddrinfo") == (3, {"EAI_NONAME": 3})
    assert rows.pop("pthread_mutex_trylock") == (19, {"EBUSY": 19})
    # fopen opens by the same function, and itself does not ask for errno.
    assert rows.pop("open") == (97 + 31 + 13 + 7 + 11, {"ENOENT": 31, "EISDIR": 13, "-1": 7 + 11})
    assert [value for name, value in rows.items() if name.startswith("fopen")] == [(11, {"ENOENT": 11})]
    assert rows["close"] == (97, {})


def test_errors_of_python(run_python, spawn, wait_for_line, tmp_path):
    source = """
import os, sys
print("ready", flush=True)
input()
for name in ["nowhere"] * 29 + ["."] * 5:
    try:
        os.rmdir(os.path.join(sys.argv[1], name))
    except OSError as error:
        print(error.errno)
"""
    program = run_python(source, str(tmp_path))
    wait_for_line(program, "ready")
    tracer = start_tracing(spawn, "libcalls", "rmdir", "-p", str(program.pid), "--json")
    go(program)
    assert program.wait(30) == 0
    (line,) = json_lines(end_of_tracing(tracer)[0])[1]
    assert (line["count"], line["errors"]) == (34, {"ENOENT": 29, "EINVAL": 5})


def test_another_library(spawn, certificate, ready):
    source = f"""
import ssl
print("ready", flush=True)
input()
for _ in range(31):
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain({str(certificate[0])!r}, {str(certificate[1])!r})
"""
    program = ready([sys.executable, "-c", source])
    tracer = start_tracing(spawn, "libcalls", "-l", "ssl", "-p", str(program.pid), "SSL_CTX_use_*_file", "--json")
    go(program)
    assert program.wait(30) == 0
    lines = json_lines(end_of_tracing(tracer)[0])[1]
    counts = {line["function"]: line["count"] for line in lines}
    assert counts == {"SSL_CTX_use_PrivateKey_file": 31, "SSL_CTX_use_certificate_chain_file": 31}


def test_a_function_that_there_is_not():
    assert_explained(usdtkit("libcalls", "no_such_call", "-p", os.getpid()), 4, "no_such_call")
