"""The mini-languages: any text gives a tree or an error of ours; what is printed of a tree is read as the same tree."""

from hypothesis import given, settings
from hypothesis import strategies as st

from usdtkit.errors import UsageError
from usdtkit.language import nodes as n
from usdtkit.language import printer
from usdtkit.language.formats import Format
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import PRECEDENCE, parse_distribution, parse_expression, parse_pattern, parse_trace
from usdtkit.model import Argument

PIECES = (
    *("p:", "r:", "u:", "t:", "c:", "open", "::", ":", "(", ")", " ", '"', "%d", "%s", "%", "'a'", "\\", ",", "#", ";"),
    *("arg1", "arg12", "retval", "$latency", "$entry(", "$pid", "int", "char *", "struct ", "unsigned", "size_t n"),
    *("->", "*", "&", "&&", "||", "==", "<", "<<", "!", "~", "-", "+", "/", "1", "0x", "0x1f", "09", "1.5", "@user"),
    *("STRCMP(", "str(", "...", "[", "]", "{", "ctx->dx", "\n", "é", "\udcff", "\0", "+0x4", "=", "?"),
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25).map("".join)
PREFIXES = st.sampled_from(
    ("", "c:open (", "r:c:open(char *path) (", "p:c:f(", 'c:open "', 'c:open "%d", ', "c:f():int:")
)
ARGUMENTS = (Argument("path", "str", 0), Argument("size", "u32", 1), Argument("ratio", "f64", 2))
ENTRY = Lowering("", "entry", ARGUMENTS)


@settings(max_examples=2000)
@given(PREFIXES, TEXTS)
def test_any_text(prefix, text):
    for parse in (parse_trace, parse_distribution, parse_pattern, parse_expression):
        try:
            spec = parse(prefix + text)
        except UsageError as error:
            assert len(error.details) in (0, 2)
            continue
        if isinstance(spec, n.Target):
            continue
        assert_lowered(spec)


def assert_lowered(spec):
    """What was read becomes expressions and a format, or an error of ours."""
    values = [spec.value] if isinstance(spec, n.ExpressionSpec) else [*spec.values]
    if not isinstance(spec, n.ExpressionSpec) and spec.predicate is not None:
        values.append(spec.predicate)
    parameters = () if isinstance(spec, n.ExpressionSpec) else spec.parameters
    entry = Lowering(spec.text, "entry", ARGUMENTS, parameters)
    for lowering in (entry, Lowering(spec.text, "return", entry=entry), Lowering(spec.text, "usdt", ARGUMENTS)):
        for value in values:
            for lower in (lowering.condition, lowering.number, lowering.string):
                try:
                    lower(value)
                except UsageError as error:
                    assert error.message
    if isinstance(spec, n.TraceSpec) and spec.format is not None:
        try:
            format = Format(spec)
        except UsageError:
            return
        for value in (0, -1, 2**64 - 1, "text", b"bytes", None, True, 1.5):
            assert isinstance(format.fill([value] * len(format.conversions), str), str)


TYPES = st.builds(
    n.CType, st.sampled_from(("int", "char", "unsigned long", "size_t", "struct timespec", "u32")), st.integers(0, 3)
)
NAMES = st.sampled_from(("arg1", "size", "path", "$pid", "retval", "$latency", "comm"))
LEAVES = (
    st.builds(n.Number, st.integers(0, 2**64 - 1)) | st.builds(n.Name, NAMES) | st.builds(n.Text, st.binary(max_size=8))
)


def grown(inner):
    return st.one_of(
        st.builds(n.Unary, st.sampled_from("-!~*"), inner),
        st.builds(n.Binary, st.sampled_from(sorted(PRECEDENCE)), inner, inner),
        st.builds(n.Cast, TYPES, inner),
        st.builds(n.Member, inner, st.sampled_from(("tv_sec", "next"))),
        st.builds(n.Call, st.sampled_from(("STRCMP", "$entry", "str")), st.lists(inner, max_size=3).map(tuple)),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=12)
PARAMETERS = st.lists(st.builds(n.Parameter, TYPES, st.sampled_from(("a", "b", ""))), max_size=3).map(tuple)
TARGETS = st.one_of(
    st.builds(n.Target, st.just("named"), st.just("c"), st.just("open"), st.just(""), st.integers(0, 2**40)),
    st.builds(n.Target, st.sampled_from(("entry", "return")), st.just("/bin/a"), st.sampled_from(("f", "a::b"))),
    st.builds(n.Target, st.just("usdt"), st.sampled_from(("", "c")), st.just("probe"), st.sampled_from(("", "shop"))),
)


@settings(max_examples=1000)
@given(EXPRESSIONS)
def test_expressions_survive_printing(expression):
    assert parse_expression(printer.expression(expression)).value == expression


@given(
    TARGETS, PARAMETERS, st.none() | EXPRESSIONS, st.none() | st.binary(max_size=9), st.lists(EXPRESSIONS, max_size=3)
)
def test_specs_of_trace_survive_printing(target, parameters, predicate, format, values):
    if target.kind == "usdt" or "::" in target.name or parameters == (n.Parameter(n.CType("void"), ""),):
        parameters = ()
    text = None if format is None else n.Text(format)
    spec = n.TraceSpec("", target, parameters, predicate, text, tuple(values) if text else ())
    assert parse_trace(printer.trace(spec)) == spec


@given(
    TARGETS, st.lists(st.tuples(TYPES, EXPRESSIONS), max_size=3), st.none() | EXPRESSIONS, st.sampled_from(("", "a b"))
)
def test_specs_of_argdist_survive_printing(target, values, predicate, label):
    types, nodes = zip(*values, strict=True) if values else ((), ())
    spec = n.DistributionSpec("", target, (), types, nodes, predicate if nodes else None, label)
    assert parse_distribution(printer.distribution(spec)) == spec
