import pytest

from usdtkit.elf.accessors import member
from usdtkit.elf.image import Image

SOURCE = """
typedef struct { const char *text; unsigned long length; } String;
typedef struct { char *host, *user; int number; } Context;
typedef struct { char first[0x68]; String query; char more[0x2580]; Context *context; String database; } Thread;
String *in_it(Thread *t) { return &t->query; }
String both_halves(Thread *t) { return t->query; }
unsigned long first_half(Thread *t) { return (unsigned long)t->query.text; }
String *far_away(Thread *t) { return &t->database; }
char *behind_a_pointer(Thread *t) { return t->context ? t->context->user : 0; }
char *at_its_beginning(Thread *t) { return t->context ? t->context->host : 0; }
int of_32_bits(Thread *t) { return t->context->number; }
unsigned long calculated(Thread *t) { return t->query.length + 1; }
unsigned long of_another(Thread *t, Thread *u) { return u->query.length; }
"""
LAYOUT = {
    "in_it": (0x68,),
    "both_halves": (0x68,),
    "first_half": (0x68,),
    "far_away": (0x2600,),
    "behind_a_pointer": (0x25F8, 8),
    "at_its_beginning": (0x25F8, 0),
    "of_32_bits": (0x25F8, 16),
    "calculated": (),
    "of_another": (),
    "nowhere": (),
}


@pytest.mark.parametrize("optimisation", ["-O1", "-O2", "-Os"])
@pytest.mark.parametrize("compiler", ["gcc", "clang", "aarch64-linux-gnu-gcc"])
def test_members_that_accessors_return(compiler, optimisation, compile_c):
    library = compile_c(SOURCE, optimisation, "-shared", "-fPIC", compiler=compiler)
    with Image.open(library) as image:
        found = {name: member(image, name) for name in LAYOUT}
    assert found.pop("both_halves") in ((), (0x68,))  # one instruction of Arm's can load both
    assert found == {name: offsets for name, offsets in LAYOUT.items() if name != "both_halves"}


@pytest.mark.parametrize("flags", [["-O0"], ["-O2", "-fcf-protection"], ["-O2", "-pg"]])
def test_other_forms_are_not_guessed(flags, compile_c):
    library = compile_c(SOURCE, *flags, "-shared", "-fPIC")
    with Image.open(library) as image:
        found = {name: member(image, name) for name in LAYOUT}
    assert all(offsets in ((), LAYOUT[name]) for name, offsets in found.items())
    assert (found == LAYOUT) == ("-fcf-protection" in flags)


def test_a_function_that_ends_within_an_instruction(compile_c):
    code = bytes.fromhex("488d4768c3")
    for length in range(len(code)):
        text = ",".join(map(str, code[:length])) or "0x90"
        source = f'__asm__(".globl cut\\n.type cut, @function\\ncut: .byte {text}\\n.size cut, .-cut");'
        with Image.open(compile_c(source, "-shared")) as image:
            assert member(image, "cut") == ()
