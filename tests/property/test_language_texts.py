"""The languages: any text becomes a tree or a typed error, and the printed text of a tree is read as the same tree."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st

from usdtkit.errors import UsageError
from usdtkit.language import nodes, printer
from usdtkit.language.formats import Format
from usdtkit.language.lower import Lowering
from usdtkit.language.parser import PRECEDENCE, parse_distribution, parse_expression, parse_pattern, parse_trace
from usdtkit.model import Argument
from usdtkit.naming import exact

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
        if isinstance(spec, nodes.Target):
            continue
        assert_lowered(spec)


def assert_lowered(spec):
    """Each part of a spec becomes an expression, or a typed error."""
    values = [spec.value] if isinstance(spec, nodes.ExpressionSpec) else [*spec.values]
    if not isinstance(spec, nodes.ExpressionSpec) and spec.predicate is not None:
        values.append(spec.predicate)
    parameters = () if isinstance(spec, nodes.ExpressionSpec) else spec.parameters
    entry = Lowering(spec.text, "entry", ARGUMENTS, parameters)
    for lowering in (entry, Lowering(spec.text, "return", entry=entry), Lowering(spec.text, "usdt", ARGUMENTS)):
        for value in values:
            for lower in (lowering.condition, lowering.number, lowering.string):
                try:
                    lower(value)
                except UsageError as error:
                    assert error.message
    if isinstance(spec, nodes.TraceSpec) and spec.format is not None:
        try:
            format = Format(spec)
        except UsageError:
            return
        for value in (0, -1, 2**64 - 1, "text", b"bytes", None, True, 1.5):
            assert isinstance(format.fill([value] * len(format.conversions), 1, lambda pid, at: "x"), str)


TYPES = st.builds(
    nodes.CType,
    st.sampled_from(("int", "char", "unsigned long", "size_t", "struct timespec", "u32")),
    st.integers(0, 3),
)
NAMES = st.sampled_from(("arg1", "size", "path", "$pid", "retval", "$latency", "comm"))
LEAVES = (
    st.builds(nodes.Number, st.integers(0, 2**64 - 1))
    | st.builds(nodes.Name, NAMES)
    | st.builds(nodes.Text, st.binary(max_size=8))
)


def grown(inner):
    return st.one_of(
        st.builds(nodes.Unary, st.sampled_from("-!~*"), inner),
        st.builds(nodes.Binary, st.sampled_from(sorted(PRECEDENCE)), inner, inner),
        st.builds(nodes.Cast, TYPES, inner),
        st.builds(nodes.Member, inner, st.sampled_from(("tv_sec", "next"))),
        st.builds(nodes.Call, st.sampled_from(("STRCMP", "$entry", "str")), st.lists(inner, max_size=3).map(tuple)),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=12)
PARAMETERS = st.lists(st.builds(nodes.Parameter, TYPES, st.sampled_from(("a", "b", ""))), max_size=3).map(tuple)
# Names as they are, which are written in quotes, and globs.
EXACT_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20) | st.binary(
    min_size=1, max_size=20
).map(os.fsdecode)
FUNCTION_NAMES = st.sampled_from(("f", "a::b", "a*", "<T*Trait>::run")) | EXACT_NAMES.map(exact)
LIBRARIES = st.just("/bin/a") | EXACT_NAMES.filter(lambda name: name not in ("p", "r", "u", "t"))
TARGETS = st.one_of(
    st.builds(nodes.Target, st.just("named"), LIBRARIES, FUNCTION_NAMES, st.just(""), st.integers(0, 2**40)),
    st.builds(nodes.Target, st.sampled_from(("entry", "return")), LIBRARIES, FUNCTION_NAMES),
    st.builds(
        nodes.Target,
        *(st.just("usdt"), st.just("") | LIBRARIES),
        *(st.just("probe") | EXACT_NAMES.map(exact), st.sampled_from(("", "shop")) | EXACT_NAMES.map(exact)),
    ),
)


@settings(max_examples=1000)
@given(EXPRESSIONS)
def test_expressions_survive_printing(expression):
    assert parse_expression(printer.expression(expression)).value == expression


@given(
    TARGETS, PARAMETERS, st.none() | EXPRESSIONS, st.none() | st.binary(max_size=9), st.lists(EXPRESSIONS, max_size=3)
)
def test_specs_of_trace_survive_printing(target, parameters, predicate, format, values):
    if target.kind == "usdt" or not any(parameter.name for parameter in parameters):
        parameters = ()
    text = None if format is None else nodes.Text(format)
    spec = nodes.TraceSpec("", target, parameters, predicate, text, tuple(values) if text else ())
    assert parse_trace(printer.trace(spec)) == spec


@given(
    TARGETS, st.lists(st.tuples(TYPES, EXPRESSIONS), max_size=3), st.none() | EXPRESSIONS, st.sampled_from(("", "a b"))
)
def test_specs_of_argdist_survive_printing(target, values, predicate, label):
    types, collected = zip(*values, strict=True) if values else ((), ())
    spec = nodes.DistributionSpec("", target, (), types, collected, predicate if collected else None, label)
    assert parse_distribution(printer.distribution(spec)) == spec
