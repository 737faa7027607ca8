"""No literal of a statement survives, wherever the text is cut; against quoting by the dialects' own rules."""

import re

from hypothesis import given
from hypothesis import strategies as st

from usdtkit.model import Truncated
from usdtkit.providers.sql import normalise

SECRET = "zqx"  # in every literal, and in nothing else
data = st.text("abc'\"\\$`-/*#;\n ?", max_size=12).map(lambda text: f"{text}{SECRET}{text}")


def mysql(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def mysql_double(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def plain(text):
    return "'" + text.replace("'", "''") + "'"


def escaped(text):
    return "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def dollars(text):
    return f"$q$ {text} $q$"


def continued(text):
    return f"{escaped(text)}\n -- it's\n{escaped(text)[1:]}"


def of_no_server(text):
    return "/*!99999 " + text.replace("*/", "") + " */"


def comment(text):
    return "/*" + re.sub(r"[*/!]", " ", text) + "*/"


def statements(*forms, more=()):
    literal = st.one_of([data.map(form) for form in (*forms, comment)])
    code = st.sampled_from([" select ", " a = ", " (", ") ", ", ", " from t1 where ", " and ", " `x` ", "\n", *more])
    return st.lists(code | literal.map(lambda text: f" {text} "), max_size=8).map("".join)


# Comments that some servers run: strings within, around and across them.
CONDITIONAL = (" /*!50000 ", " /*! ", " /*M!100100 ", " */ ")


@given(statements(mysql, mysql_double, of_no_server, more=CONDITIONAL), st.integers(0, 200))
def test_mysql(text, length):
    assert SECRET not in normalise(text, "mysql")
    assert SECRET not in normalise(Truncated(text[:length]), "mysql")


@given(statements(plain, escaped, continued, dollars), st.integers(0, 200))
def test_postgresql(text, length):
    assert SECRET not in normalise(text, "postgresql")
    assert SECRET not in normalise(Truncated(text[:length]), "postgresql")


@given(st.text(max_size=80) | st.text("'\"\\$`-/*#!;\n ?1a.", max_size=80), st.sampled_from(["mysql", "postgresql"]))
def test_any_text_has_a_shape_that_is_no_longer(text, dialect):
    assert len(normalise(text, dialect)) <= len(text)


@given(st.text("a1.eE+- =(),;*/:_\t\n\x1c?@0", max_size=24), st.sampled_from(["mysql", "postgresql"]))
def test_what_has_no_strings_is_scanned_alike(text, dialect):
    """A quote at its end, which is no word, leads the text to the scanner that knows all."""
    assert normalise(text, dialect) == normalise(f"{text}\n''", dialect).removesuffix("?").rstrip(" ;")
