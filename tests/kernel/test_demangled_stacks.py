"""Names in stacks as programmers wrote them, and from debug files wherever the process has them."""

import subprocess

from processes import among_own_mounts, end

from usdtkit import trace
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.model import UserPlace
from usdtkit.output import frames
from usdtkit.trace import ustack
from usdtkit.trace.specs import Resolved

SHOP = """
#include <cstdio>
namespace shop {
struct Order { template <typename T> __attribute__((noinline)) T pay(T amount, int times); };
extern "C" __attribute__((noinline)) int deepest(int n) { __asm__ volatile("" : : "r"(n)); return n; }
template <typename T> T Order::pay(T amount, int times) {
    T sum = 0;
    for (int n = 0; n < times; n++) sum += deepest(n);
    return sum + amount;
}
}
int main() { std::puts("ready"); std::fflush(stdout); getchar(); return shop::Order().pay<long>(7, 997) == 0; }
"""


def test_a_program_in_cpp(ready, tmp_path):
    path = tmp_path / "shop"
    flags = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]
    subprocess.run(["g++", "-xc++", "-", *flags, "-o", path], input=SHOP, text=True, check=True)
    process = ready([path])
    with trace.Session(pid=process.pid) as session:
        counts = session.uprobe(str(path), "deepest").count(stack=ustack)
        session.start()
        process.stdin.close()
        list(session)
        [((stack,), count)] = counts.read().items()
    assert count == 997
    assert frames.labels(stack)[:3] == ("deepest", "long shop::Order::pay<long>(long, int)", "main")
    assert frames.labels(stack, offsets=True)[1].startswith("long shop::Order::pay<long>(long, int)+0x")


def test_debug_files_below_the_root_of_a_container(compile_c, spawn, wait_for_line, tmp_path):
    program = compile_c("chains.c", "-O2", "-fno-omit-frame-pointer", "-static", "-Wl,--build-id")
    with Image.open(program) as image:
        number = image.build_id
        [work] = functions(image, "work")
    places = (UserPlace("work", str(tmp_path / "chains"), work.file_offset),)
    debug = tmp_path / "usr/lib/debug/.build-id" / number[:2] / f"{number[2:]}.debug"
    debug.parent.mkdir(parents=True)
    subprocess.run(["objcopy", "--only-keep-debug", program, debug], check=True)
    subprocess.run(["strip", "-o", tmp_path / "chains", program], check=True)
    process = spawn([*among_own_mounts('mount --bind "$0" /mnt; exec chroot /mnt /chains 97'), tmp_path])
    wait_for_line(process, "ready")
    with trace.Session(pid=process.pid) as session:
        counts = session.source(Resolved("work", "entry", (), places)).count(stack=ustack)
        session.start()
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in session.intervals(0.05):
            if sum(counts.read().values()) == 3 * 97:
                break
        names = {frames.labels(stack)[:2] for (stack,) in counts.read()}
        end(process)
    assert names == {("work", "left"), ("work", "deeper"), ("work", "descend")}
