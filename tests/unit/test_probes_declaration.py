import enum

import pytest
from stubs import forget_providers

from usdtkit import Provider, argument, u64
from usdtkit.argumenttypes import DECLARABLE
from usdtkit.errors import UsageError
from usdtkit.testing import record_probes


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))


@pytest.mark.parametrize(
    "name", ["", "1shop", "shop:x", "../shop", "sh op", "sjö", "shop\n", "-shop", "x" * 65, None, b"shop"]
)
def test_provider_names_that_tracers_cannot_spell(name):
    with pytest.raises(UsageError, match="provider"):
        Provider(name)


@pytest.mark.parametrize("name", ["shop", "_", "a-b", "Shop2", "x" * 64])
def test_provider_names_that_they_can(name):
    assert Provider(name).name == name


@pytest.mark.parametrize("name", ["", "a:b", "a.b", "a\0b", "x" * 65, 3])
def test_probe_names(name):
    with pytest.raises(UsageError, match="a probe"):
        Provider("shop").probe(name)


@pytest.mark.parametrize("name", ["a-b", "a b", "ö", "", "x" * 65])
def test_argument_names(name):
    with pytest.raises(UsageError, match="an argument of probe shop:order"):
        Provider("shop").probe("order", **{name: "u64"})


@pytest.mark.parametrize("kind", ["int", "U64", "", "u128", None, int, ["u64"], ("u64",)])
def test_unknown_types_are_answered_with_the_known(kind):
    with pytest.raises(UsageError, match="argument 'id' of probe shop:order") as caught:
        Provider("shop").probe("order", id=kind)
    assert "u64" in caught.value.hint
    assert "bytes" in caught.value.hint


def test_twelve_operands_and_no_more():
    shop = Provider("shop")
    assert len(shop.probe("twelve", **{f"a{n}": "u64" for n in range(12)}).arguments) == 12
    assert len(shop.probe("six_pairs", **{f"a{n}": "bytes" for n in range(6)}).arguments) == 6
    with pytest.raises(UsageError, match="13 operands"):
        shop.probe("thirteen", **{f"a{n}": "u64" for n in range(11)}, body="bytes")


def test_the_same_declaration_again_is_the_same_probe_and_another_is_refused():
    shop = Provider("shop")
    with pytest.raises(UsageError):
        shop.probe("order", id="nonsense")
    first = shop.probe("order", id="u64", state=argument("enum", names=["new", "paid"]))
    assert shop.probe("order", {"id": "u64"}, state=argument("enum", names={"new": 0, "paid": 1})) is first
    for others in ({"id": "u64"}, {"id": "u32", "state": "i32"}, {"id": argument("u64", unit="s")}):
        with pytest.raises(UsageError, match="shop:order is declared twice, and differently"):
            shop.probe("order", **others)
    assert shop.probes == (first,)


def test_a_provider_of_one_name_is_one():
    shop = Provider("shop", nop="fast")
    assert Provider("shop") is shop
    assert Provider("shop", nop="fast") is shop
    assert Provider("other") is not shop
    with pytest.raises(UsageError, match="shop exists with nop='fast', not 'safe'"):
        Provider("shop", nop="safe")


@pytest.mark.parametrize("option", [{"nop": "slow"}, {"nop": 1}, {"on_error": "ignore"}])
def test_options_of_a_provider(option):
    with pytest.raises(UsageError, match=f"{next(iter(option))} of provider shop cannot be"):
        Provider("shop", **option)
    assert Provider("shop", nop="safe").name == "shop"


def test_arguments_with_any_name_stand_in_a_mapping():
    names = {"doc": "str", "on_error": "u8", "self": "u8", "name": "u8"}
    assert Provider("shop").probe("order", names, doc="x", more="u8").arguments == (*names.items(), ("more", "u8"))


class State(enum.Enum):
    NEW = "n"
    PAID = "p"


class Level(enum.IntEnum):
    LOW = -(2**31)
    HIGH = 2**31 - 1


def test_enums_are_numbered_by_their_values_or_in_order():
    shop = Provider("shop")
    shop.probe("order", state=State, level=Level)
    state, level = shop.specs[0].arguments
    assert (state.type, state.names) == ("enum", (("NEW", 0), ("PAID", 1)))
    assert (level.type, level.names) == ("enum", (("LOW", -(2**31)), ("HIGH", 2**31 - 1)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda: argument("u128"), "unknown type"),
        (lambda: argument(int), "unknown type"),
        (lambda: argument("enum"), "needs names"),
        (lambda: argument("u8", names=("new",)), "cannot have names"),
        (lambda: argument("enum", names=("new", "new")), "twice"),
        (lambda: argument("enum", names={"new": 2**31}), "32 bits"),
        (lambda: argument("enum", names={"new": True}), "32 bits"),
        (lambda: argument("enum", names=("",)), "empty"),
        (lambda: argument("enum", names=(1,)), "must be a str"),
        (lambda: argument("enum", names=list(map(str, range(257)))), "257 names"),
        (lambda: argument("str", limit=100), "cannot have a limit"),
        (lambda: argument("json", limit=63), "63 bytes"),
        (lambda: argument("json", limit=2**21), "2097152 bytes"),
        (lambda: argument("u64", unit="x" * 33), "33 characters"),
        (lambda: argument("u64", doc="\ud800"), "not valid Unicode"),
        (lambda: Provider("shop").probe("order", state="enum"), "an enum without names"),
        (lambda: Provider("shop").probe("order", state=enum.Enum("Big", {"x": 2**31})), "32 bits"),
        (lambda: Provider("shop").probe("order", stability="rotten"), "stability of probe shop:order"),
        (lambda: Provider("shop").probe("order", on_error="ignore"), "on_error of probe shop:order"),
    ],
)
def test_what_arguments_cannot_be(wrong, why):
    with pytest.raises(UsageError, match=why):
        wrong()


@pytest.mark.parametrize("doc", [b"bytes", "\ud800", "x" * 4097, b"", None])
def test_docs(doc):
    with pytest.raises(UsageError, match="the doc of probe shop:order"):
        Provider("shop").probe("order", doc=doc)


def test_what_a_probe_says_of_itself():
    probe = Provider("shop").probe("order__start", doc="An order arrives.", order_id="u64", name="str")
    assert (probe.provider, probe.name, probe.doc) == ("shop", "order__start", "An order arrives.")
    assert probe.arguments == (("order_id", "u64"), ("name", "str"))
    assert probe.path is None
    assert repr(probe) == "<Probe shop:order__start(order_id: u64, name: str)>"


def test_the_compiled_type_knows_every_declared_type():
    shop = Provider("shop")
    for kind in DECLARABLE:
        declared = argument(kind, names=["new"]) if kind.startswith("enum") else kind
        name = f"with_{kind.replace('?', '_or_none')}"
        probe = shop.probe(name, value=declared)
        assert probe.arguments == (("value", kind),)
        assert repr(probe) == f"<Probe shop:{name}(value: {kind})>"  # by the compiled type's own table


def test_an_argument_may_have_the_name_of_an_option():
    shop = Provider("shop")
    every = shop.probe("every", id="u64", doc="str", stability=argument("u8"), on_error="json", name="str", file="str")
    assert [name for name, _ in every.arguments] == ["id", "name", "file", "doc", "stability", "on_error"]
    assert (every.doc, every.stability) == ("", "")
    both = shop.probe("both", {"doc": "str", "id": "u64"}, doc="Why.", stability="stable")
    assert (both.arguments, both.doc, both.stability) == ((("doc", "str"), ("id", "u64")), "Why.", "stable")
    span = shop.define_span("work", doc="str", name="str", arguments="json", self="u8")
    assert [name for name, _ in span.start.arguments][3:] == ["name", "arguments", "self", "doc"]
    with record_probes() as fired:
        every(1, name="n", file="f", doc="d", stability=2, on_error=None)
        with shop.span("work", doc="d", name="n", arguments=1, self=2):
            pass

        @shop.traced(name="str", arguments="u64", thing="u64", self="u8")
        def work(self, name, arguments, thing):
            return name

        @shop.traced(arguments={"name": "str", "doc": "str"}, name="named")
        def page(name, doc):
            return name

        assert work(1, "ada", 2, thing=3) == "ada"
        assert page("index", doc="text") == "index"
    assert fired.of("shop:every")[0] == {
        "id": 1,
        "name": "n",
        "file": "f",
        "doc": "d",
        "stability": 2,
        "on_error": None,
    }
    values = [{name: each[name] for name in list(each)[3:]} for each in fired.of("*__start")]
    assert values == [
        {"name": "n", "arguments": 1, "self": 2, "doc": "d"},
        {"thing": 3, "self": 1, "name": "ada", "arguments": 2},
        {"name": "index", "doc": "text"},
    ]


def test_a_span_by_a_signature():
    shop = Provider("shop")

    @shop.define_span
    def payment(order_id: u64, customer: str):
        "A payment."

    assert payment.start.arguments[3:] == (("order_id", "u64"), ("customer", "str"))
    assert payment.start.doc == "A payment. Begins."
    with record_probes() as fired:
        with payment(42, customer="ada"):
            pass
    (start,) = fired.of("shop:payment__start")
    assert (start["order_id"], start["customer"]) == (42, "ada")
