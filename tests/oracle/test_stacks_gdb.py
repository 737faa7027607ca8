"""Every frame of a stack is the one that gdb has at the same hit: in programs from Debian's packages, most of which are
built without frame pointers, and in one whose stacks are hard to follow.

USDTKIT_STOPS says how many hits of each function are compared.
"""

import os
import shutil
import subprocess
from pathlib import Path

import iced_x86 as iced
import pytest
from processes import eventually
from programs.gdb import STOPS, attached
from programs.load import STATEMENTS, Load

from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions

pytestmark = pytest.mark.kernel


def assert_equal(pid, functions, let_go):
    """At so many calls of each function: {(library, name): every how many-th}. `let_go` lets the process work."""
    with attached(pid) as gdb:
        let_go()
        for (library, name), every in functions.items():
            assert_all(gdb.compare(library, name, every), STOPS, name)


def assert_all(compared, stops, what):
    different = [each for each in compared if not each.is_equal]
    assert not different, f"{what}: {len(different)} of {len(compared)}, the first: {different[0]}"
    assert len(compared) == stops


class Script:
    """An interpreter that runs a script as soon as it is told to, and does not end by itself."""

    def __init__(self, spawn, wait_for_line, *argv):
        self.process = spawn(argv)
        wait_for_line(self.process, "ready")
        self.pid = self.process.pid

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def script(spawn, wait_for_line):
    return lambda *argv: Script(spawn, wait_for_line, *argv)


PYTHON = """
import json, os, re, sys, threading, time
def recurse(n):
    return recurse(n - 1) if n else work()
def work():
    with open(os.devnull, "rb", buffering=0) as null:
        null.read(10)
    text = json.dumps({"numbers": list(range(100))})
    re.sub("[0-9]+", lambda found: str(sorted([bytes(1000), bytes(997)], key=len)), text)
def forever():
    while True:
        for n in range(20):
            recurse(n)
            time.sleep(0)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
forever()
"""


def test_python(script):
    process = script("/usr/bin/python3.11", "-c", PYTHON)
    assert_equal(process.pid, {("c", "malloc"): 7, ("c", "read"): 3, ("c", "clock_nanosleep"): 5}, process.go)


PHP = """
function recurse($n) { return $n ? recurse($n - 1) : work(); }
function work() {
    $words = preg_replace_callback('/[0-9]+/', fn($found) => str_repeat($found[0], 3), json_encode(range(1, 50)));
    $numbers = range(1, 20);
    usort($numbers, fn($a, $b) => strcmp("$a", "$b"));
    file_get_contents('/dev/null');
    return sprintf('%s %d', md5($words), strlen(serialize(array_map('strrev', explode(',', $words)))));
}
echo "ready\\n";
fgets(STDIN);
for (;;) for ($n = 0; $n < 20; $n++) recurse($n);
"""


def test_php(script):
    process = script("php", "-d", "display_errors=0", "-r", PHP)
    assert_equal(process.pid, {("php", "_emalloc"): 97, ("c", "read"): 3}, process.go)


NODE = """
const { pbkdf2, randomBytes } = require('crypto'), { readFile } = require('fs'), { deflate } = require('zlib');
function hash() { pbkdf2('secret', 'salt', 10, 32, 'sha256', hash); }
function compress() { deflate(Buffer.alloc(10000, 'text'), compress); }
function read() { readFile('/proc/self/stat', read); }
console.log('ready');
process.stdin.once('data', () => {
  hash(); compress(); read();
  setInterval(() => { if (process.argv[1] == 'named') process.memoryUsage(); randomBytes(97); }, 1);
});
"""


def test_node(script):
    """In its threads, and in the main one; with JavaScript in the stack only if the program names V8's builtins."""
    named = b" Builtins_CEntry" in subprocess.run(["nm", shutil.which("node")], capture_output=True).stdout
    process = script("node", "-e", NODE, "named" if named else "")
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    zlib = "z" if "/libz.so" in maps else "node"  # it is within some builds
    waits = "epoll_wait" if "/libuv.so" in maps else "epoll_pwait"  # which the newer libuv within Node calls
    assert_equal(process.pid, {("c", waits): 2, (zlib, "deflate"): 2, ("c", "read"): 3}, process.go)


def test_curl(tls, spawn):
    process = spawn(["curl", "--silent", "--insecure", "--output", os.devnull, "--config", "-"])
    eventually(lambda: "libssl" in Path(f"/proc/{process.pid}/maps").read_text())

    def go():
        process.stdin.write(f'url = "{tls.url}[1-{100 * STOPS}]"\n')
        process.stdin.close()

    assert_equal(process.pid, {("ssl", "SSL_write"): 1, ("ssl", "SSL_read"): 2, ("c", "malloc"): 97}, go)


def test_mariadb(mariadb):
    with Load(lambda: mariadb.query(*STATEMENTS), clients=3) as load:
        functions = {("c", "malloc"): 97, ("c", "pthread_mutex_lock"): 197, ("c", "recv"): 3}
        assert_equal(mariadb.pid, functions, load.go)


QUERIES = """
CREATE TEMPORARY TABLE t (a int PRIMARY KEY, b text);
INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 97) n;
SELECT left(b, 2) AS c, count(*), array_agg(a) FROM t WHERE b ~ '[a-f]+' GROUP BY 1 ORDER BY 2 DESC LIMIT 3;
DO $$ DECLARE s int; BEGIN FOR n IN 1..7 LOOP SELECT sum(length(b)) INTO s FROM t WHERE a > n; END LOOP; END $$;
DROP TABLE t;
"""


def test_postgres(postgres, spawn):
    """The server process of one connection."""
    client = spawn([postgres.psql, "--no-psqlrc", "-qAt"], env=postgres.environment)

    def send(text):
        client.stdin.write(text)
        client.stdin.flush()

    send(f"\\o /dev/null\n{QUERIES}\\o\nSELECT pg_backend_pid();\n")  # all libraries are loaded then
    pid = int(client.stdout.readline())
    send("\\o /dev/null\n")
    with Load(lambda: send(QUERIES), clients=1) as load:
        functions = {("postgres", "palloc"): 97, ("postgres", "LWLockAcquire"): 97, ("c", "malloc"): 7}
        assert_equal(pid, functions, load.go)
    client.stdin.close()
    assert client.wait(20) == 0
    postgres.settle()


UNWOUND = {"gcc": ["-O2"], "fixed": ["-O2", "-no-pie"], "clang": ["-O2", "-Wno-unknown-attributes"]}


@pytest.fixture(params=UNWOUND)
def unwound(request, compile_c, script):
    """(path, process) of a program whose stacks are hard to follow."""
    path = compile_c("unwound.c", *UNWOUND[request.param], compiler="clang" if request.param == "clang" else "gcc")
    return str(path), script(path, 1_000_000)


def test_hard_chains(unwound):
    path, process = unwound
    assert_equal(process.pid, {(path, "hit"): 1}, process.go)


def test_every_instruction(unwound):
    """Of functions, without calls, jumps and returns, behind which gdb stops."""
    path, process = unwound
    with attached(process.pid) as gdb:
        process.go()
        for name in ("by_alignment", "by_size", "by_jump", "by_comparison", "sorts", "on_signal"):
            with Image.open(path) as image:
                (function,) = functions(image, name)
                code = image.read(function.file_offset, function.size)
            offsets = [each.ip for each in iced.Decoder(64, code, ip=0) if each.flow_control == iced.FlowControl.NEXT]
            assert_all(gdb.compare(path, name, stops=2 * len(offsets), offsets=offsets), 2 * len(offsets), name)


def test_first_calls_of_functions_in_libraries(compile_c, script):
    """Between the program and the linker, in entries of the linkage table that push what the linker finds them by."""
    path = str(compile_c("unwound.c", "-O2", "-Wl,-z,lazy"))
    process = script(path, 1)
    with Image.open(path) as image:
        (function,) = functions(image, "hit")
        table = image.section(".plt")
        code = image.read(table.offset, table.size)
    start = table.offset - function.file_offset
    pushes = [start + each.ip for each in iced.Decoder(64, code, ip=0) if each.mnemonic == iced.Mnemonic.PUSH]
    with attached(process.pid) as gdb:
        process.go()
        assert_all(gdb.compare(path, "hit", stops=10, offsets=pushes), 10, ".plt")
