import pytest

from usdtkit import Provider
from usdtkit.errors import UsageError
from usdtkit.probes.declaration import TYPES


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


@pytest.mark.parametrize("kind", ["int", "U64", "", "u128", None, int, ["u64"]])
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


def test_a_probe_is_declared_once_and_a_failed_declaration_leaves_nothing():
    shop = Provider("shop")
    with pytest.raises(UsageError):
        shop.probe("order", id="nonsense")
    first = shop.probe("order", id="u64")
    with pytest.raises(UsageError, match="shop:order is declared twice"):
        shop.probe("order", id="u64")
    assert shop.probes == (first,)


@pytest.mark.parametrize("doc", [b"bytes", "\ud800", "x" * 4097])
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
    for kind in TYPES:
        assert shop.probe(f"with_{kind}", value=kind).arguments == (("value", kind),)
