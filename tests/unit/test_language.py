"""The languages of trace and argdist: what they accept, what it becomes, and how everything else is refused."""

import pytest

from usdtkit.errors import SpecError
from usdtkit.language import nodes, printer
from usdtkit.language.formats import Format
from usdtkit.language.lexer import tokens
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import parse_distribution, parse_expression, parse_pattern, parse_target, parse_trace
from usdtkit.language.typenames import PYFRAME
from usdtkit.model import Argument


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("c:open", nodes.Target("named", "c", "open")),
        ("shop:order__*", nodes.Target("named", "shop", "order__*")),
        ("p:c:open", nodes.Target("entry", "c", "open")),
        ("p:/usr/lib/libc.so.6:open+0x1d", nodes.Target("entry", "/usr/lib/libc.so.6", "open", offset=0x1D)),
        ("./a.out:main+13", nodes.Target("named", "./a.out", "main", offset=13)),
        (":c:open", nodes.Target("entry", "c", "open")),
        ("r:bash:readline", nodes.Target("return", "bash", "readline")),
        ("u:pthread:pthread_create", nodes.Target("usdt", "pthread", "pthread_create")),
        ("u:/opt/app:shop:order", nodes.Target("usdt", "/opt/app", "order", "shop")),
        ("u::order", nodes.Target("usdt", "", "order")),
        ("u::shop:order", nodes.Target("usdt", "", "order", "shop")),
        ("p:app:ns::Shop::sell", nodes.Target("entry", "app", "ns::Shop::sell")),
        ("app:ns::Shop::sell(int)", nodes.Target("named", "app", "ns::Shop::sell(int)")),
        ("r:app:<T*Trait>::run", nodes.Target("return", "app", "<T*Trait>::run")),
    ],
)
def test_targets(text, target):
    assert parse_trace(text).target == target


@pytest.mark.parametrize(
    ("target", "regexp"),
    [
        ("p:c:malloc", False),
        ("r:c:read", False),
        ("c:mem*", False),
        ("u:app:shop:order*", False),
        ("app:ns::sell(int, long)", False),
        ("app:std::vector<int, std::allocator<int> >::*", False),
        ("app:(anonymous namespace)::sell(int) const", False),
        ("app:std::function<void (int)>::call", False),
        ("app:ns::operator<(ns::Shop const&)", False),
        ("app:main.(*Shop).Sell", False),
        ('app:"main.(*Shop).Sell (x\\""', False),
        ('p:"/opt/my app":"operator new(unsigned long)"', False),
        ("c:^(read|write)$", True),
        ("c:^pthread_(mutex|cond)", True),
    ],
)
@pytest.mark.parametrize("condition", ["", "arg1 > (2 + arg2)", 'STRCMP("a (b", arg1)'])
def test_a_pattern_is_a_target_with_or_without_a_condition(target, regexp, condition):
    spec = parse_pattern(f"{target} ({condition})" if condition else target, regexp=regexp)
    assert spec.target == parse_target(target, 0, len(target))
    assert spec.predicate == (parse_expression(condition).value if condition else None)


def test_a_pattern_may_have_a_signature():
    spec = parse_pattern("p:c:malloc(size_t size) (size > 40)")
    assert [parameter.name for parameter in spec.parameters] == ["size"]
    assert printer.expression(spec.predicate) == "size > 40"


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("c:malloc (arg1 >)", 16, "expected a value, not ')'"),
        ("c:malloc (arg1", 14, "expected )"),
        ("c:malloc (arg1) x", 16, "expected the end, not 'x'"),
        ('c:open "%d", arg1', 7, "only a target and a condition are expected here"),
        ("app:(a b)::c (arg1) x", 20, "expected the end, not 'x'"),
        ("u:app:done(int n) (n)", 10, "a USDT probe has no signature"),
    ],
)
def test_errors_of_patterns(text, at, message):
    with pytest.raises(SpecError) as caught:
        parse_pattern(text)
    assert message in caught.value.message
    assert caught.value.at == at


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("open", 0, "'open' does not name a library: usdtkit does not trace kernel functions"),
        ("", 0, "expected a target"),
        ("p::open", 0, "kernel functions"),
        ("::open", 0, "kernel functions"),
        ("t:block:block_rq_complete", 0, "kernel functions"),
        ("u:probe", 0, "does not name a USDT probe"),
        ("u:a:b:c:d", 0, "does not name a USDT probe"),
        ("p:open", 0, "is not a target"),
        ("ns::open", 0, "is not a target"),
        ("r:c:open+4", 8, "a return cannot have an offset"),
        ("c:open (1 +)", 11, "expected a value, not ')'"),
        ("c:open (1", 9, "expected )"),
        ("c:open (size_t n)", 15, "expected ), not 'n'"),
        ('c:open "%d, arg1', 7, 'this has no " at its end'),
        ('c:open "%d" arg1', 12, "expected the end, not 'arg1'"),
        ("c:open (arg1 = 2)", 13, "expected another operator, not '='"),
        ("c:open (arg1 > 08)", 15, "'08' is not an integer"),
        ("c:open (arg1 > 1.5)", 15, "'1.5' is not an integer"),
        ("c:open (arg1 == 'ab')", 16, "exactly one character"),
        ("c:open (arg1 == `ls`)", 16, "cannot be part of a spec"),
        ("c:open (0x10000000000000000 == arg1)", 8, "more than 64 bits"),
        ("c:open(int fd, int) (fd->)", 25, "expected the name of a member"),
        (f"c:open ({'(' * 70}1{')' * 70})", 72, "this expression is nested too deeply"),
        (f"c:open ({' + '.join(['1'] * 70)})", 260, "this expression is nested too deeply"),
        ("u:c:probe(int a)", 9, "a USDT probe has no signature"),
    ],
)
def test_errors_mark_the_place(text, at, message):
    with pytest.raises(SpecError) as caught:
        parse_trace(text)
    assert message in caught.value.message
    assert caught.value.at == at
    line, caret = caught.value.details
    assert line.endswith(text[-10:])
    assert caret.index("^") == min(2 + at, 62)


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("p:c:open", 8, "expected ("),
        ("p:c:open():int", 14, "expected : and what to collect"),
        ("p:c:open():int:arg1,arg2", 15, "there are 1 types, but 2 values"),
        ("p:c:open():int,:arg1", 15, "expected a type"),
        ("p:c:open(int a):int:a:a>1:2", 25, "expected the end"),
        ("u:c:probe(int a)", 0, ""),
    ],
)
def test_errors_of_distributions(text, at, message):
    if not message:
        assert parse_distribution(text).parameters  # `hooks` knows whether it is a probe
        return
    with pytest.raises(SpecError) as caught:
        parse_distribution(text)
    assert message in caught.value.message
    assert caught.value.at == at


def test_a_distribution():
    spec = parse_distribution("r:c:malloc(size_t size):u64,char *:$latency/$entry(size),$comm:$retval != 0#ns per byte")
    assert spec.target == nodes.Target("return", "c", "malloc")
    assert spec.parameters == (nodes.Parameter(nodes.CType("size_t"), "size"),)
    assert spec.types == (nodes.CType("u64"), nodes.CType("char", 1))
    assert [*map(printer.expression, spec.values)] == ["$latency / $entry(size)", "$comm"]
    assert printer.expression(spec.predicate) == "$retval != 0"
    assert spec.label == "ns per byte"
    assert parse_distribution("p:c:fork();calls of fork").label == "calls of fork"
    assert parse_distribution('p:c:f(char *s):int:1:s == "a;b#c"').label == ""


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("p:c:f()", []),
        ("p:c:f(void)", []),
        ("p:c:f(int a)", [("int", 0, "a")]),
        ("p:c:f(const unsigned long int a, ...)", [("unsigned long int", 0, "a")]),
        ("p:c:f(const char *const s, char *envp[])", [("char", 1, "s"), ("char", 2, "envp")]),
        ("p:c:f(struct timespec *req)", [("struct timespec", 1, "req")]),
        ("p:c:f(std::string &name, ns::T x)", [("std::string", 1, "name"), ("ns::T", 0, "x")]),
        ("p:c:f(void *(*start)(void *), FILE *f)", [("void", 1, "start"), ("FILE", 1, "f")]),
        ("p:c:f(char __user *buf, u64)", [("char", 1, "buf"), ("u64", 0, "")]),
        ("p:c:f(unsigned n)", [("unsigned", 0, "n")]),
    ],
)  # fmt: skip
def test_signatures(text, parameters):
    parsed = parse_trace(text).parameters
    assert [(parameter.type.name, parameter.type.pointers, parameter.name) for parameter in parsed] == parameters


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("1+2*3", "1 + 2 * 3"),
        ("(1+2)*3", "(1 + 2) * 3"),
        ("1-(2-3)", "1 - (2 - 3)"),
        ("1-2-3", "1 - 2 - 3"),
        ("a&1==0", "a & 1 == 0"),
        ("a<<2<b", "a << 2 < b"),
        ("!a&&~b||-c", "!a && ~b || -c"),
        ("- -a", "- -a"),
        ("(int)retval<0", "(int)retval < 0"),
        ("(char*)$retval", "(char *)$retval"),
        ("*(unsigned int*)(arg1+8)", "*(unsigned int *)(arg1 + 8)"),
        ("(gfp_t)flags", "(gfp_t)flags"),
        ("(flags)&1", "flags & 1"),
        ("req->tv_nsec", "req->tv_nsec"),
        ("(*a)->b", "(*a)->b"),
        ("arg2@user", "arg2"),
        ('STRCMP("a\\"b\\x01\\n\\\\", arg1)', 'STRCMP("a\\"b\\001\\012\\\\", arg1)'),
        ("'a' + '\\n' + '\\0' + 0x1F + 017 + 0b11 + 5UL", "97 + 10 + 0 + 31 + 15 + 3 + 5"),
        ("0xffffffffffffffff", "18446744073709551615"),
    ],
)
def test_expressions_and_their_text(text, printed):
    spec = parse_expression(text)
    assert printer.expression(spec.value) == printed
    assert parse_expression(printed).value == spec.value


def test_positions():
    assert [(token.text, token.at) for token in tokens('a ->b  "c d"')][:-1] == [
        ("a", 0),
        ("->", 2),
        ("b", 4),
        ('"c d"', 7),
    ]


ENTRY = Lowering("", "entry", (Argument("path", "str", 0), Argument("flags", "i32", 1)))
RETURN = Lowering("", "return", entry=ENTRY)
USDT = Lowering(
    "", "usdt", (Argument("query", "str", 0), Argument("ratio", "f64", 1), Argument("gone", "unreadable", 2))
)


@pytest.mark.parametrize(
    ("lowering", "text", "message", "hint"),
    [
        (ENTRY, "nothing > 1", "nothing here is called 'nothing'", "these names exist: path, flags, arg1 …, $pid"),
        (ENTRY, "arg13", "there is no arg13: at most 12", None),
        (ENTRY, "retval", "only the return of a function has a return value", "r:LIBRARY:FUNCTION"),
        (ENTRY, "$latency", "only the return of a function has a latency", None),
        (ENTRY, "$entry(path)", "$entry can only be used at a return", None),
        (RETURN, "path", "path cannot be read when the function returns", "$entry(path)"),
        (RETURN, "$entry(nothing)", "nothing here is called 'nothing'", None),
        (RETURN, "$entry(path, flags)", "this takes 1 argument, not 2", None),
        (USDT, "arg4", "there is no arg4: at most 3 arguments", None),
        (USDT, "ratio + 1", "ratio is not an integer", None),
        (USDT, "gone", "this build keeps gone in a place that a probe cannot read", None),
        (ENTRY, "STRCMP(path, path)", "expected a string literal", '"text"'),
        (ENTRY, 'STRCMP("a")', "this takes 2 arguments, not 1", 'STRCMP("text", value)'),
        (ENTRY, 'STRNCMP("a", path, flags)', "the length must be a number", None),
        (ENTRY, '"a" + 1', "a string literal can only be compared with a value", None),
        (ENTRY, "popen(path)", "there is no function popen", "STRCMP, STRNCMP"),
        (ENTRY, "*flags", "flags is not a pointer", "*(int *)flags"),
        (ENTRY, "flags->x", "the members of what flags points to are not known", "timespec"),
        (ENTRY, "((struct timespec *)path)->tv_usec", "struct timespec has no member tv_usec", "tv_sec, tv_nsec"),
        (ENTRY, "*(struct timespec *)path", "cannot be read as one number", None),
        (ENTRY, "(struct stat)flags", "there is no type struct stat", None),
        (ENTRY, "ctx", "ctx means all registers", "ctx->dx"),
        (ENTRY, "pycaller", "pycaller is not an integer", None),
        (ENTRY, "1 / 0", "this is a division by 0", None),
        (ENTRY, "flags + 1 / (2 - 2)", "this is a division by 0", None),
        (ENTRY, f'STRCMP("{"a" * 300}", path)', "300 bytes is too long", None),
        (ENTRY, 'contains(path, "' + "a" * 80 + '")', "a pattern of 80 bytes", None),
    ],
)  # fmt: skip
def test_what_cannot_be_lowered(lowering, text, message, hint):
    with pytest.raises(SpecError) as caught:
        lowering.condition(parse_expression(text).value)
    assert message in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_the_python_function_that_called():
    (node,) = parse_distribution("p:c:open():pyframe:pycaller").values
    names = [expression.name for expression in (ENTRY.typed(node, PYFRAME), ENTRY.string(node), ENTRY.shown(node))]
    assert names == ["pycaller"] * 3
    with pytest.raises(SpecError, match="flags is no function of Python"):
        ENTRY.typed(parse_expression("flags").value, PYFRAME)
    lowering = Lowering("", "return", entry=ENTRY)
    lowering.typed(parse_expression("$entry(pycaller)").value, PYFRAME)
    assert (len(lowering.kept), lowering.is_pair) == (1, True)


def test_what_a_return_keeps():
    lowering = Lowering("", "return", entry=ENTRY)
    for text in ("$entry(flags) > 1", "$entry(flags) < 9", 'STRCMP("a", $entry(path))', "$entry(path) != 0"):
        lowering.condition(parse_expression(text).value)
    assert len(lowering.kept) == 3  # the number once, the string, the address
    assert lowering.is_pair


@pytest.mark.parametrize(
    ("spec", "values", "text"),
    [
        ('c:f "%d|%5d|%-5d|%05d|%+d", 1, 2, 3, 4, 5', (1, 2, 3, 4, 5), "1|    2|3    |00004|+5"),
        ('c:f "%u %lu %llu %hu %hhu %zu", 1, 2, 3, 4, 5, 6', (1, 2, 3, 4, 5, 6), "1 2 3 4 5 6"),
        ('c:f "%x %X %#x %08lx %o %p", 1, 2, 3, 4, 5, 6', (26, 26, 26, 26, 8, 26), "1a 1A 0x1a 0000001a 10 0x1a"),
        ('c:f "%s|%10s|%-6s|%.2s", 1, 2, 3, 4', ("a", "bc", "d\x1b", "efg"), "a|        bc|d\\x1b |ef"),
        ('c:f "%c%c", 1, 2', (65, 10), "A\\x0a"),
        ('c:f "%f %.2f %g %d%%", 1, 2, 3, 4', (1.5, 2.345, 0.5, 7), "1.500000 2.35 0.5 7%"),
        ('c:f "%r %U", 1, 2', (b"\x01\xff", 4096), "01ff symbol 4096 of 42"),
        ('c:f "%s %d", 1, 2', (None, 1), "null 1"),
        ('c:f "\\tdone\\n"', (), "\tdone\n"),
    ],
)
def test_formats(spec, values, text):
    assert Format(parse_trace(spec)).fill(values, 42, lambda pid, address: f"symbol {address} of {pid}") == text


@pytest.mark.parametrize(
    ("spec", "at", "message"),
    [
        ('c:f "%d %d", arg1', 4, "the format has 2 conversions, but 1 values follow it"),
        ('c:f "%d", arg1, arg2', 16, "the format has 1 conversions, but 2 values follow it"),
        ('c:f "%K", arg1', 4, "%K is a symbol of the kernel"),
        ('c:f "%n", arg1', 4, "there is no conversion %n"),
        ('c:f "%*d", arg1', 4, "this % does not begin a conversion"),
        ('c:f "100%"', 4, "this % does not begin a conversion"),
        ('c:f "%9999d", arg1', 4, "this % does not begin a conversion"),
    ],
)
def test_errors_of_formats(spec, at, message):
    with pytest.raises(SpecError) as caught:
        Format(parse_trace(spec))
    assert message in caught.value.message
    assert caught.value.at == at
