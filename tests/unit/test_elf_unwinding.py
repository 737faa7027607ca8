"""Which files say that their code leaves functions otherwise than by returning."""

import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit.elf.image import Image
from usdtkit.elf.unwinding import RETURNS_TWICE, may_leave

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
PLAIN = "int work(int n) { return n * 997; } int main(int count, char **arguments) { return work(count); }"


def reason(path):
    with Image.open(path) as image:
        return may_leave(image)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *[(LIBRARIES / "libc.so.6", ""), ("/lib64/ld-linux-x86-64.so.2", ""), (LIBRARIES / "libm.so.6", "")],
        *[("/usr/bin/ls", ""), (LIBRARIES / "libz.so.1", "")],
        (LIBRARIES / "libgcc_s.so.1", "is libgcc_s, which unwinds stacks"),
        *[(LIBRARIES / "libstdc++.so.6", "handles exceptions"), ("/usr/sbin/mariadbd", "handles exceptions")],
        *[("/usr/bin/python3.11", "imports pthread_exit"), ("/usr/bin/perl", "longjmp"), ("/usr/bin/bash", "longjmp")],
        *[(LIBRARIES / "libcrypto.so.3", "imports setcontext"), ("/usr/bin/php8.2", "jump_fcontext")],
    ],
)
def test_real_files(path, said):
    found = reason(path)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize(
    ("call", "header", "name"),
    [
        *[("pthread_cancel(pthread_self())", "pthread.h", "pthread_cancel"), ("pthread_exit(0)", "pthread.h", None)],
        *[("swapcontext(0, 0)", "ucontext.h", "swapcontext"), ("dlopen(0, 1)", "dlfcn.h", "dlopen")],
        *[("longjmp(0, 1)", "setjmp.h", "longjmp"), ("siglongjmp(0, 1)", "setjmp.h", "siglongjmp")],
        *[("backtrace(0, 0)", "execinfo.h", "backtrace"), ("_Unwind_Backtrace(0, 0)", "unwind.h", "_Unwind_Backtrace")],
    ],
)
def test_what_a_program_imports(compile_c, call, header, name):
    source = f"#include <{header}>\nint main(int count, char **arguments) {{ if (count > 9) {call}; return 0; }}"
    path = compile_c(source, "-Wno-nonnull", "-Wno-unused-result", "-Wno-stringop-overflow")
    assert reason(path) == f"imports {name or call.partition('(')[0]}"


def test_plain_c_says_nothing(compile_c):
    assert reason(compile_c(PLAIN)) == ""
    assert reason(compile_c(PLAIN, "-shared", "-fPIC")) == ""


def test_a_name_that_ends_in_another(compile_c):
    """The linker stores one within the other; which of them a symbol has counts."""
    source = "void my_longjmp(void); void (*pointer)(void) = my_longjmp; int main(void) { return pointer == 0; }"
    library = compile_c("void my_longjmp(void) {} void my_dlopen(void) {}", "-shared", "-fPIC")
    assert reason(library) == ""
    assert reason(compile_c(source, "-xnone", str(library))) == ""


def test_exceptions_are_known_by_their_table(compile_c):
    source = "int main(int count, char **) { try { throw count; } catch (int n) { return n; } }"
    assert "exceptions" in reason(compile_c(source, compiler="g++"))
    assert "exceptions" in reason(compile_c("int main() { return 0; }", "-static"))  # that of its C library
    cleans = """
    static void done(int *n) { *n = 0; }
    void f(void);
    int g(void) { __attribute__((cleanup(done))) int n = 1; f(); return n; }
    """
    assert "exceptions" in reason(compile_c(cleans, "-fexceptions", "-shared", "-fPIC"))


def test_a_name_of_its_own_exempts_nothing_else(compile_c):
    assert reason(compile_c("#include <dlfcn.h>\nvoid *f(void) { return dlopen(0, 1); }", "-shared", "-fPIC")) != ""
    assert (
        reason(
            compile_c(
                "#include <dlfcn.h>\nvoid *f(void) { return dlopen(0, 1); }",
                "-shared",
                "-fPIC",
                "-Wl,-soname,libc.so.6",
            )
        )
        == ""
    )


def test_without_sections_nothing_is_known(compile_c, tmp_path):
    data = bytearray(compile_c(PLAIN).read_bytes())
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    path = tmp_path / "headless"
    path.write_bytes(data)
    assert "section headers" in reason(path)


def test_a_damaged_file_has_a_reason(compile_c, tmp_path):
    path = tmp_path / "damaged"
    with Image.open(compile_c(PLAIN)) as image:
        dynamic = next(index for index, section in enumerate(image.sections) if section.name == ".dynsym")
        table = int.from_bytes(image.read(40, 8), "little")
    data = bytearray(Path(image.path).read_bytes())
    data[table + 64 * dynamic + 24 : table + 64 * dynamic + 32] = (2**60).to_bytes(8, "little")
    path.write_bytes(data)
    assert "cannot be read" in reason(path)


def test_greenlet_switches_stacks(compile_c):
    assert "greenlet" in reason(compile_c("void *PyInit__greenlet(void) { return 0; }", "-shared", "-fPIC"))


def test_go(compile_c):
    source = '__attribute__((section(".go.buildinfo"), used)) char info[16]; int main(void) { return 0; }'
    assert reason(compile_c(source)) == "is a Go program"


def test_rust_unwinds(tmp_path):
    source = tmp_path / "a.rs"
    source.write_text('fn main() { println!("{:?}", std::panic::catch_unwind(|| panic!("no")).is_err()) }')
    subprocess.run(["rustc", "-O", "-o", tmp_path / "a", source], check=True)
    assert "exceptions" in reason(tmp_path / "a")


def test_the_interpreter_that_runs_this():
    assert reason(Path(sys.executable).resolve()) != ""


def test_functions_that_return_twice_are_in_libc():
    """Of those that glibc has: the others are of other C libraries."""
    names = subprocess.run(
        ["nm", "--dynamic", "--defined-only", LIBRARIES / "libc.so.6"], text=True, capture_output=True, check=True
    ).stdout
    exported = {line.split()[-1].partition("@")[0] for line in names.splitlines()}
    assert exported & RETURNS_TWICE == {"setjmp", "_setjmp", "__sigsetjmp", "getcontext"}
