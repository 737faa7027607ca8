"""Where functions leave: assembler whose labels say it, and what compilers make of every form of C."""

import subprocess

import pytest

from usdtkit.elf.callframes import CallFrames, Rule
from usdtkit.elf.exits import MOST_SITES, Exit, ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import UnsupportedError
from usdtkit.records import replace

# A function NAME leaves at the labels NAME_x0, NAME_x1, …
ASSEMBLER = """
.macro function name
.globl \\name
.type \\name, @function
\\name:
.cfi_startproc
.endm
.macro done name
.cfi_endproc
.size \\name, .-\\name
.endm

function several
  test %edi, %edi
  je 1f
  mov $1, %eax
several_x0: ret
1: xor %eax, %eax
several_x1: repz ret
done several

function framed
  push %rbx
  .cfi_def_cfa_offset 16
  call several
  pop %rbx
  .cfi_def_cfa_offset 8
framed_x0: ret
done framed

function tail
  inc %edi
  jmp several
done tail

function conditional
  test %edi, %edi
  jg several
  xor %eax, %eax
conditional_x0: ret
done conditional

function elsewhere
  test %edi, %edi
elsewhere_x0: jbe abs@PLT
elsewhere_x1: jmp abs@PLT
done elsewhere

function by_register
  mov callback(%rip), %rax
by_register_x0: jmp *%rax
done by_register

function by_memory
by_memory_x0: jmp *callback(%rip)
done by_memory

function by_array
  lea callbacks(%rip), %rdx
by_array_x0: jmp *(%rdx,%rdi,8)
done by_array

function switches
  cmp $2, %edi
  ja 9f
  lea table(%rip), %rdx
  movslq (%rdx,%rdi,4), %rax
  add %rdx, %rax
  jmp *%rax
7: mov $7, %eax
switches_x0: ret
8: mov $8, %eax
switches_x1: ret
9: xor %eax, %eax
switches_x2: ret
done switches

function unmarked
  cmp $1, %edi
  ja 9b
  lea callbacks(%rip), %rdx
  jmp *(%rdx,%rdi,8)
  mov $7, %eax
unmarked_x0: ret
done unmarked

function holds_data
  jmp 1f
  .ascii "text \\303 and \\377\\340 \\303"
1: mov $1, %eax
holds_data_x0: ret
done holds_data

function out_of_step
  test %edi, %edi
  je 1f + 1
1: mov $0xc3c3c3c3, %eax
  ret
done out_of_step

function undefined
  ret
  .byte 0x06, 0x07
done undefined

function into_another
  jmp several + 4
done into_another

function runs_on
  nop
done runs_on

function misfit
  push %rbx
  .cfi_def_cfa_offset 16
  ret
done misfit

function refused
  .byte 0x2e
  ret
done refused

function narrow
  test %edi, %edi
  .byte 0x66, 0x74, 0
  ret
done narrow

function over_the_prefix
  xor %eax, %eax
  cmpl $0, %fs:0x18
  je 1f
  .byte 0xf0
1: incl counter(%rip)
over_the_prefix_x0: ret
done over_the_prefix

function subroutine
  call 1f
subroutine_x0: ret
1: ret
done subroutine

function forever
1: jmp 1b
done forever

function hangs_up
  ud2
done hangs_up

function system_call
  mov $39, %eax
  syscall
system_call_x0: ret
done system_call

function many
.rept 300
  dec %edi
  jne . + 3
  ret
.endr
  ret
done many

.section .rodata
table: .long 7b - table, 8b - table, 9b - table
.data
.balign 8
callback: .quad several
callbacks: .quad several, framed
counter: .long 0
"""
PROGRAM = f"""
#define QUOTED(...) #__VA_ARGS__
__asm__(".text\\n" R"x({ASSEMBLER})x" "\\n.text\\n");
int main(void) {{ return 0; }}
"""


@pytest.fixture(scope="module")
def assembled(compile_c):
    with Image.open(compile_c(PROGRAM, "-std=gnu11", "-fcf-protection=none")) as image:
        yield image


def labels(image):
    lines = subprocess.run(["nm", image.path], text=True, capture_output=True, check=True).stdout.splitlines()
    return {name: int(address, 16) for address, _, name in (line.split() for line in lines if line[0] != " ")}


def exits(image, name):
    return ExitFinder(image).find(functions(image, name)[0])


def shape(found):
    return [(site.kind, site.condition, site.shared, site.final) for site in found.sites]


@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        *[("several", True), ("framed", False), ("switches", True), ("holds_data", True), ("over_the_prefix", True)],
        *[("subroutine", False), ("system_call", False)],
    ],
)
def test_every_return_is_found(assembled, name, leaf):
    found, at = exits(assembled, name), labels(assembled)
    expected = [assembled.file_offset(at[label]) for label in sorted(at) if label.startswith(f"{name}_x")]
    assert expected
    assert found.sites == tuple(Exit(offset, "return", 0, False, True) for offset in expected)
    assert (found.is_leaf, found.ends_in, found.entry) == (leaf, (), assembled.file_offset(at[name]))


@pytest.mark.parametrize("name", ["tail", "conditional"])
def test_a_tail_call_is_followed(assembled, name):
    found, at = exits(assembled, name), labels(assembled)
    theirs = [Exit(assembled.file_offset(at[f"several_x{n}"]), "return", 0, True, True) for n in range(2)]
    own = [Exit(assembled.file_offset(at[f"{name}_x0"]), "return", 0, False, True)] if name == "conditional" else []
    assert found.sites == tuple(theirs + own)
    assert (found.is_leaf, found.ends_in) == (False, ())


@pytest.mark.parametrize(
    ("name", "kinds", "ends_in"),
    [
        ("elsewhere", [("branch", 6, False, False), ("jump", 0, False, False)], "abs"),
        ("by_register", [("jump", 0, False, False)], "an address in a register"),
        ("by_memory", [("jump", 0, False, False)], "an address in memory"),
        ("by_array", [("jump", 0, False, False)], "an address in memory"),
    ],
)
def test_what_cannot_be_followed_is_left_at_the_jump(assembled, name, kinds, ends_in):
    found, at = exits(assembled, name), labels(assembled)
    assert shape(found) == kinds
    assert [site.file_offset for site in found.sites] == [
        assembled.file_offset(at[f"{name}_x{n}"]) for n in range(len(kinds))
    ]
    assert found.ends_in == (ends_in,)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("out_of_step", "cannot be decoded"),
        ("undefined", "cannot be decoded"),
        ("into_another", "into the middle of another function"),
        ("runs_on", "continues into the code after it"),
        ("misfit", "call frame information does not match"),
        ("refused", "the kernel puts no probe"),
        ("narrow", "differs between processors"),
        ("forever", "does not return"),
        ("hangs_up", "does not return"),
        ("many", f"leaves by 301 instructions, and at most {MOST_SITES} are supported"),
    ],
)
def test_a_function_that_is_not_understood_is_refused(assembled, name, reason):
    with pytest.raises(UnsupportedError, match=reason) as raised:
        exits(assembled, name)
    assert f"{name} in {assembled.path}" in raised.value.message
    assert raised.value.hint


def test_the_table_of_a_switch_without_a_mark(compile_c):
    """The same jump as through an array of functions: here only it leads to the second return."""
    source = """
    __asm__(".text\\n.globl f\\n.type f,@function\\nf: .cfi_startproc\\n"
            "lea t(%rip),%rdx\\n jmp *(%rdx,%rdi,8)\\n1: xor %eax,%eax\\n ret\\n2: mov $2,%eax\\n ret\\n"
            ".cfi_endproc\\n.size f,.-f\\n.section .data.rel.ro,\\"aw\\"\\n.balign 8\\nt: .quad 1b,2b\\n.text");
    int main(void) { return 0; }
    """
    with Image.open(compile_c(source)) as image:
        assert shape(exits(image, "f")) == [("return", 0, False, True)] * 2


def test_starts_of_instructions(assembled):
    finder = ExitFinder(assembled)
    assert finder.starts(functions(assembled, "several")[0]) == [0, 2, 4, 9, 10, 12]
    assert finder.starts(functions(assembled, "over_the_prefix")[0]) == [0, 2, 11, 13, 20]
    for name in ("out_of_step", "undefined", "narrow"):
        assert finder.starts(functions(assembled, name)[0]) is None
    assert finder.starts(functions(assembled, "misfit")[0]) == [0, 1]
    assert finder.starts(functions(assembled, "runs_on")[0]) == [0]


def test_without_a_size_it_is_that_of_its_call_frame_information(assembled):
    function = replace(functions(assembled, "several")[0], size=0)
    assert len(ExitFinder(assembled).find(function).sites) == 2
    with pytest.raises(UnsupportedError, match="its size is not known"):
        ExitFinder(assembled).find(replace(function, address=function.address + 2))


COMPILED = """
#include <stdlib.h>
#include <string.h>
#ifdef __clang__
#define PLAIN __attribute__((noinline))
#else
#define PLAIN __attribute__((noinline, noclone))
#endif
struct row { int kind; char text[40]; } rows[9];
void *volatile sink;
PLAIN int leaf(int n) { return n * 997; }
PLAIN int tail(int n) { return leaf(n + 1); }
PLAIN void releases(void *block) { sink = 0; free(block); }
PLAIN int unlikely(const char *text) {
  if (__builtin_expect(!text, 0)) { abort(); }
  if (__builtin_expect(text[0] == '!', 0)) { rows[0].kind = strlen(text); return -rows[0].kind; }
  return leaf(text[0]);
}
PLAIN int chooses(int n, const char *text) {
  switch (n) {
  case 0: return strlen(text); case 1: return text[1]; case 2: return rows[n].kind + strlen(rows[1].text);
  case 3: return 17; case 4: return leaf(n) + 1; case 5: return -n; case 6: return rows[3].kind; default: return 0;
  }
}
PLAIN int recursive(int n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
PLAIN __attribute__((noreturn)) void leaves(int n) { exit(n); }
int main(int count, char **arguments) {
  releases(malloc(9));
  if (count > 9) leaves(unlikely(arguments[1]) + chooses(count, arguments[0]));
  return tail(recursive(count)) & 1;
}
"""


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3", "-Os"])
@pytest.mark.parametrize("more", ["-fcf-protection=full", "-fcf-protection=none", "-static-pie", "-no-pie"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_what_compilers_make_of_c(compile_c, level, more, compiler):
    with Image.open(compile_c(COMPILED, level, more, compiler=compiler)) as image:
        leaf, tail, chooses = (exits(image, name) for name in ("leaf", "tail", "chooses"))
        assert shape(leaf) == [("return", 0, False, True)]
        assert leaf.is_leaf
        assert not tail.is_leaf
        assert shape(tail) in ([("return", 0, True, True)], [("return", 0, False, True)])
        if tail.sites[0].shared:
            assert tail.sites == tuple(site._replace(shared=True) for site in leaf.sites)
        assert all(site.final for site in (*chooses.sites, *exits(image, "unlikely").sites))
        assert all(site.kind == "return" for site in exits(image, "recursive").sites)
        releases = exits(image, "releases")
        assert set(releases.ends_in) in (set(), {"free"})
        with pytest.raises(UnsupportedError, match="does not return"):
            exits(image, "leaves")


def test_a_part_that_was_moved_away_belongs_to_its_function(compile_c):
    with Image.open(compile_c(COMPILED, "-O2")) as image:
        cold = labels(image)["unlikely.cold"]
        finder = ExitFinder(image)
        assert finder._callees.fragment(cold, False) is not None
        body = finder._body(functions(image, "unlikely")[0].address, functions(image, "unlikely")[0].size)
        assert body.problem == ""
        assert body.calls  # abort, which only the moved part calls


@pytest.mark.parametrize("strip", [[], ["--strip-all"]])
def test_the_frame_is_known_at_every_instruction(compile_c, tmp_path, strip):
    """At entry and at returns it is 8 bytes above the stack pointer, between them further."""
    whole = compile_c(COMPILED, "-O2")
    path = tmp_path / "stripped"
    subprocess.run(["objcopy", *strip, whole, path], check=True)
    with Image.open(whole) as image, Image.open(path) as stripped:
        function = functions(image, "recursive")[0]
        frames, found = CallFrames(stripped), ExitFinder(image).find(function)
        described = frames.covering(function.address + 1)
        assert (described.start, described.end) == (function.address, function.address + function.size)
        assert frames.rule(function.address) == frames.at_entry == Rule(7, 8)
        shift = function.address - function.file_offset
        assert all(frames.rule(site.file_offset + shift) == Rule(7, 8) for site in found.sites)
        assert max(frames.rule(at).offset for at in range(described.start, described.end)) > 8
        assert frames.covering(0) is None
        assert frames.rule(2**64 - 1) is None


def test_a_file_without_sections_has_its_frames_by_segment(compile_c, tmp_path):
    whole = compile_c(COMPILED, "-O2")
    data = bytearray(whole.read_bytes())
    data[40:48] = bytes(8)
    data[60:64] = bytes(4)
    path = tmp_path / "headless"
    path.write_bytes(data)
    with Image.open(whole) as image, Image.open(path) as headless:
        function = functions(image, "recursive")[0]
        assert CallFrames(headless).covering(function.address) is not None
        assert len(ExitFinder(headless).find(function).sites) == len(ExitFinder(image).find(function).sites)


def test_frames_without_a_table_are_gone_through(compile_c):
    with Image.open(compile_c(COMPILED, "-O2")) as image, Image.open(compile_c(COMPILED, "-O2")) as other:
        other.sections = tuple(section for section in other.sections if section.name != ".eh_frame_hdr")
        for function in functions(image, "*"):
            ours, theirs = CallFrames(image), CallFrames(other)
            assert theirs.covering(function.address) == ours.covering(function.address)
            assert theirs.rule(function.address) == ours.rule(function.address)


def test_other_machines_are_refused(compile_c):
    with Image.open(compile_c("int main(void) { return 0; }", compiler="i686-linux-gnu-gcc")) as image:
        function = functions(image, "main")[0]
        assert ExitFinder(image).starts(function) is None
        with pytest.raises(UnsupportedError, match="i386 code cannot be decoded"):
            ExitFinder(image).find(function)


def test_aarch64(compile_c):
    with Image.open(compile_c(COMPILED, "-O2", compiler="aarch64-linux-gnu-gcc")) as image:
        lines = subprocess.run(
            ["aarch64-linux-gnu-objdump", "-d", image.path], text=True, capture_output=True, check=True
        ).stdout.splitlines()
        returns = {int(line.split(":")[0], 16) for line in lines if line.split("\t")[2:3] == ["ret"]}
        for name in ("leaf", "chooses", "recursive"):
            function = functions(image, name)[0]
            inside = {at for at in returns if function.address <= at < function.address + function.size}
            found = exits(image, name)
            own = {site.file_offset for site in found.sites if not site.shared and site.kind == "return"}
            assert own == {image.file_offset(at) for at in inside}
        assert exits(image, "leaf").is_leaf
        assert shape(exits(image, "tail")) == [("return", 0, True, True)]
        releases = exits(image, "releases")
        assert (shape(releases), releases.ends_in) == ([("jump", 0, False, False)], ("free",))
