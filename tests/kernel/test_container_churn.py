"""Containers that come and go, beside the start of tools that look over all processes."""

import pytest
from commandline import usdtkit
from processes import among_own_mounts

STARTS = (("sslsniff", "-d", "0.2"), ("ssllatency", "-d", "0.2"), ("ustat", "0.2", "1"))

LIBRARY = """
int SSL_do_handshake(void *ssl) { __asm__ volatile(""); return ssl != 0; }
int SSL_read(void *ssl, void *to, int size) { __asm__ volatile(""); return ssl && to ? size : -1; }
int SSL_write(void *ssl, const void *from, int size) { __asm__ volatile(""); return ssl && from ? size : -1; }
void SSL_free(void *ssl) { __asm__ volatile("" : : "r"(ssl)); }
"""
PROGRAM = """
#include <sys/sdt.h>
#include <unistd.h>
int SSL_do_handshake(void *), SSL_read(void *, void *, int);
int main(int count, char **words) {
    for (int i = 0; i < 20; i++) {
        DTRACE_PROBE2(python, function__entry, words[0], words[0]);
        SSL_do_handshake(words);
        SSL_read(words, words, 1);
        usleep(2000);
    }
    return count < 1;
}
"""
# What is touched is a file of this container alone, which has gone with its last process.
CHURN = """
cd "$1"
: >rounds
while :; do
    mkdir -p upper work merged
    mount -t overlay overlay -o lowerdir=../lower,upperdir=upper,workdir=work merged
    touch merged/libssl.so.3
    LD_LIBRARY_PATH=merged merged/program
    umount merged 2>>busy || umount --lazy merged
    rm -rf upper work
    echo >>rounds
done
"""


@pytest.fixture
def churn(spawn, compile_c, tmp_path):
    """Two loops of containers, of about 20 in a second; the files that count them."""
    lower = tmp_path / "lower"
    lower.mkdir()
    library = compile_c(LIBRARY, "-shared", "-fPIC", "-O1", "-Wl,-soname,libssl.so.3")
    (lower / "libssl.so.3").write_bytes(library.read_bytes())
    program = compile_c(PROGRAM, "-O1", f"-L{lower}", "-l:libssl.so.3")
    (lower / "program").write_bytes(program.read_bytes())
    (lower / "program").chmod(0o755)
    counts = []
    for loop in ("one", "two"):
        (tmp_path / loop).mkdir()
        spawn([*among_own_mounts(CHURN), "sh", str(tmp_path / loop)])
        counts.append(tmp_path / loop / "rounds")
    return counts


def test_every_tool_starts_while_containers_come_and_go(churn):
    failed = []
    for number in range(50):
        done = usdtkit(*STARTS[number % len(STARTS)])
        if done.returncode:
            failed.append((done.args[-3:], done.returncode, done.stderr))
    assert failed == []
    assert all(count.stat().st_size > 50 for count in churn)
