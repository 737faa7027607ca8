"""The examples of docs/providers.md and of the modules' docstrings, run against the software that they measure."""

import importlib
import os
import pty
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.machine

PROGRAMS = Path(__file__).parents[1] / "programs"
PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
SECTIONS = dict(re.findall(r"^## [^\n]*`usdtkit\.providers\.(\w+)`$(.*?)(?=^## |\Z)", PAGE, re.S | re.M))


@pytest.fixture
def run_examples(spawn):
    """run_examples(module, pid, work): run the examples of a section, and compare what they print with the page.

    The process is `pid` in place of 4711. An example that waits for events ends when it has seen them: until then
    `work` is called, which makes the traced software do what the example is about.
    """

    def run(module, pid=0, work=None):
        examples = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", SECTIONS[module], re.S)
        assert len(examples) == SECTIONS[module].count("```python") > 0
        for code, output in examples:
            process = spawn([sys.executable, "-c", code.replace("4711", str(pid))])
            deadline = time.monotonic() + 60
            while work is not None and process.poll() is None:
                work()
                assert time.monotonic() < deadline, f"the example has not seen what it waits for:\n{code}"
            assert process.stdout.read() == output
            assert process.wait(20) == 0

    return run


def test_examples_of_mysql(mariadb, run_examples):
    run_examples("mysql", mariadb.pid, lambda: mariadb.query("select sleep(0.02)"))


def test_examples_of_postgresql(postgres, run_examples):
    run_examples("postgresql", work=lambda: postgres.query("select pg_sleep(0.02)"))


def test_examples_of_sql(run_examples):
    run_examples("sql")


RUBY = """
class Order; def charge; end; end
$calls = TracePoint.new(:call, :return) {}
$calls.enable
puts "ready"
$stdout.flush
while gets
  Order.new.charge
  GC.start
  puts "done"
  $stdout.flush
end
"""


@pytest.fixture
def stepping(ready):
    """stepping(argv) -> (pid, step) of a program that says "ready", and then answers each line that it reads."""

    def start(*argv):
        process = ready(argv)

        def step():
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline()

        return process.pid, step

    return start


def python(statement):
    """A Python program that runs a statement for each line, for `stepping`."""
    loop = f"for line in sys.stdin:\n    {statement}\n    print(flush=True)"
    return sys.executable, "-c", f"import contextlib, os, socket, sys\nprint('ready', flush=True)\n{loop}"


def test_examples_of_resolver(stepping, run_examples):
    run_examples("resolver", *stepping(*python("socket.getaddrinfo('localhost', 80)")))


def test_examples_of_tls(tls, run_examples):
    def fetch():
        subprocess.run(tls.client("curl"), check=True, stdout=subprocess.DEVNULL)
        tls.served()

    run_examples("tls", tls.pid, fetch)


def test_examples_of_pam(pam, run_examples):
    run_examples("pam", work=lambda: pam.login(pam.password, "authenticate"))


def test_examples_of_readline(spawn, run_examples):
    master, terminal = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "HOME": "/nonexistent", "PS1": "ready> "}
    shell = ["bash", "--norc", "--noprofile", "-i"]
    process = spawn(shell, stdin=terminal, stdout=terminal, stderr=terminal, text=False, env=environment)
    os.close(terminal)

    def await_prompt():
        seen = b""
        while not seen.endswith(b"ready> "):
            seen += os.read(master, 4096)

    def enter():
        os.write(master, b"cd /srv/shop\n")
        await_prompt()

    await_prompt()
    run_examples("readline", process.pid, enter)
    os.close(master)


def test_examples_of_libc(stepping, run_examples):
    run_examples("libc", *stepping(*python("with contextlib.suppress(FileNotFoundError): os.rmdir('/nowhere')")))


def test_examples_of_node(spawn, wait_for_line, run_examples):
    server = spawn(["node", PROGRAMS / "serve.js"])
    port = int(wait_for_line(server, "ready").split()[1])

    def fetch():
        with pytest.raises(HTTPError) as refused:
            urlopen(f"http://127.0.0.1:{port}/404/window?pane=31")
        refused.value.close()

    run_examples("node", server.pid, fetch)


def test_examples_of_threads(compile_c, stepping, run_examples):
    source = """
    #include <pthread.h>
    #include <stdio.h>
    void *boil(void *water) { return water; }
    int main(void) {
        pthread_t thread;
        puts("ready");
        for (fflush(stdout); getchar() != EOF; puts(""), fflush(stdout)) {
            pthread_create(&thread, 0, boil, 0);
            pthread_join(thread, 0);
        }
        return 0;
    }"""
    run_examples("threads", *stepping(compile_c(source, "-pthread")))


def test_examples_of_runtimes(stepping, run_examples):
    run_examples("runtimes", *stepping("ruby", "-e", RUBY))


def test_examples_of_heap(stepping, run_examples, compile_c):
    source = """
    #include <stdio.h>
    #include <stdlib.h>
    void *volatile kept;
    int main(void) {
        setlinebuf(stdout);
        puts("ready");
        while (getchar() != EOF) {
            kept = malloc(31);
            puts("done");
        }
    }
    """
    run_examples("heap", *stepping(compile_c(source, "-O1")))


def test_examples_of_locks(stepping, run_examples, compile_c):
    source = """
    #include <pthread.h>
    #include <stdio.h>
    #include <unistd.h>
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int main(void) {
        setlinebuf(stdout);
        puts("ready");
        while (getchar() != EOF) {
            pthread_mutex_lock(&mutex);
            usleep(2000);
            pthread_mutex_unlock(&mutex);
            puts("done");
        }
    }
    """
    run_examples("locks", *stepping(compile_c(source, "-O1", "-pthread")))


@pytest.mark.parametrize("module", SECTIONS)
def test_every_section_is_run_and_begins_with_the_example_of_its_module(module):
    assert f"test_examples_of_{module}" in globals()
    documented = importlib.import_module(f"usdtkit.providers.{module}").__doc__
    example = re.search(r"\n\n((?: {4}.*\n|\n)+)\n", documented)
    assert SECTIONS[module].lstrip().startswith(f"```python\n{textwrap.dedent(example[1])}```")
