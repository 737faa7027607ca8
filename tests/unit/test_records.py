"""Records behave as the classes of dataclasses and typing.NamedTuple do, and refuse what they do not support."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
import typing
from typing import ClassVar

import pytest

from usdtkit import records
from usdtkit.records import NamedTuple, asdict, dataclass, field, fields, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    label: str = field(default="", compare=False)

    @property
    def sum(self):
        return self.x + self.y


@dataclass(frozen=True, slots=True)
class Solid(Point):
    z: int = 0
    label: str = field(default="solid", compare=False, metadata={"unit": "mm"})


@dataclass
class Bag:
    name: str
    things: list[int] = field(default_factory=list)


class Pair(NamedTuple):
    """Two numbers."""

    left: int
    right: int = 2

    @property
    def sum(self):
        return self.left + self.right


def key():
    """A default value that is a function."""


def make(module, source):
    """What the text of a class becomes with dataclass and field of `module`."""
    names = {
        "__name__": __name__,
        "ClassVar": ClassVar,
        "InitVar": dataclasses.InitVar,
        "KW_ONLY": dataclasses.KW_ONLY,
        "dataclass": module.dataclass,
        "field": module.field,
        "key": key,
        "typing": typing,
    }
    exec(compile("from __future__ import annotations\n" + source, "<records>", "exec"), names)
    return names["Made"]


def attempt(action, *arguments, **named):
    """What an action returns, or the kind of error that it raises."""
    try:
        return action(*arguments, **named)
    except AttributeError:
        return AttributeError
    except (TypeError, ValueError) as error:
        return type(error)


CALLS = [((), {}), ((1,), {}), ((1, 2), {}), ((1, 3), {}), ((1, 2, 3), {}), ((1, 2, 3, 4), {}), ((2,), {}), ((9,), {})]
CALLS += [((), {"a": 1}), ((1,), {"b": 7}), ((1,), {"a": 1}), ((), {"b": 1}), ((1,), {"z": 1}), ((1, 2), {"b": 2})]


def observe(made):
    """All that can be seen of a class and of what it makes."""
    called = [attempt(made, *values, **named) for values, named in CALLS]
    instances = [each for each in called if not isinstance(each, type)]
    return {
        "class": (made.__name__, made.__qualname__, made.__module__, made.__match_args__),
        "fields": [(f.name, f.type, f.compare, f.repr, dict(f.metadata)) for f in dataclasses.fields(made)],
        "called": [each if isinstance(each, type) else dataclasses.asdict(each) for each in called],
        "signature": str(inspect.signature(made)),
        "repr": [re.sub(" at 0x[0-9a-f]+", "", repr(each)) for each in instances],
        "equal": [one == other for one in instances for other in instances],
        "hash": None if made.__hash__ is object.__hash__ else [attempt(hash, each) for each in instances],
        "dict": [hasattr(each, "__dict__") for each in instances],
        "default": None if hasattr(made, "__slots__") else [getattr(made, name, None) for name in "bc"],
        "changed": [(attempt(setattr, each, "a", 5), attempt(getattr, each, "a")) for each in instances],
        "deleted": [(attempt(delattr, each, "a"), attempt(delattr, each, "a")) for each in instances],
    }


SUPPORTED = {
    "plain": "@dataclass\nclass Made:\n a: int\n b: int = 2",
    "frozen": "@dataclass(frozen=True)\nclass Made:\n a: int\n b: int = 2",
    "slots": "@dataclass(slots=True)\nclass Made:\n a: int\n b: int = 2",
    "frozen slots": "@dataclass(frozen=True, slots=True)\nclass Made:\n a: int\n b: int = 2",
    "identity": "@dataclass(eq=False)\nclass Made:\n a: int\n b: int = 2",
    "frozen identity": "@dataclass(eq=False, frozen=True)\nclass Made:\n a: int\n b: int = 2",
    "one field": "@dataclass(frozen=True)\nclass Made:\n a: int",
    "no fields": "@dataclass(slots=True)\nclass Made:\n pass",
    "not compared": "@dataclass(frozen=True)\nclass Made:\n a: int\n b: int = field(default=2, compare=False)",
    "required, not compared": "@dataclass(frozen=True)\nclass Made:\n a: int\n b: int = field(compare=False)",
    "nothing compared": "@dataclass(frozen=True)\nclass Made:\n a: int = field(compare=False)",
    "not shown": "@dataclass\nclass Made:\n a: int = field(repr=False)\n b: int = field(default=2, repr=False)",
    "factory": "@dataclass\nclass Made:\n a: int\n b: list[int] = field(default_factory=list)",
    "no repr": "@dataclass(frozen=True, repr=False)\nclass Made:\n a: int\n def __repr__(self): return 'mine'",
    "own repr": "@dataclass(frozen=True, slots=True)\nclass Made:\n a: int\n def __repr__(self): return 'mine'",
    "own eq": "@dataclass\nclass Made:\n a: int\n def __eq__(self, other): return True",
    "own hash": "@dataclass\nclass Made:\n a: int\n def __hash__(self): return 5",
    "own match": "@dataclass\nclass Made:\n a: int\n b: int = 2\n __match_args__ = ('b',)",
    "class variable": "@dataclass\nclass Made:\n a: int\n c: ClassVar[int] = 3\n d: typing.ClassVar = 4\n b: int = 2",
    "function": "@dataclass\nclass Made:\n a: int\n b: object = key",
    "after": "@dataclass\nclass Made:\n a: int\n def __post_init__(self):\n  if self.a > 5: raise ValueError",
    "nested": "class Outer:\n @dataclass(frozen=True, slots=True)\n class Made:\n  a: int\nMade = Outer.Made",
    "derived": "@dataclass\nclass Base:\n a: int\n b: int = 1\n@dataclass\nclass Made(Base):\n c: int = 3\n b: int = 2",
    "derived slots": "@dataclass(frozen=True, slots=True)\nclass Base:\n a: int\n b: int = 1\n"
    "@dataclass(frozen=True, slots=True)\nclass Made(Base):\n c: int = 3\n b: int = 2",
    "slots at last": "@dataclass\nclass Base:\n a: int\n b: int = 1\n"
    "@dataclass(slots=True)\nclass Made(Base):\n c: int = 3",
    "of two": "@dataclass\nclass A:\n a: int\n@dataclass\nclass B:\n b: int\n"
    "@dataclass\nclass Made(A, B):\n c: int = 3",
    "plain between": "@dataclass\nclass A:\n a: int\nclass B(A):\n x = 1\n@dataclass\nclass Made(B):\n c: int = 3",
    "plain subclass": "@dataclass(frozen=True)\nclass A:\n a: int\n b: int = 2\nclass Made(A):\n c = 3",
    "hidden": "@dataclass\nclass Made:\n _a: int\n __b: int = 2",
}


@pytest.mark.parametrize("source", SUPPORTED.values(), ids=SUPPORTED)
def test_a_record_is_what_the_standard_module_would_have_made(source):
    assert observe(make(records, source)) == observe(make(dataclasses, source))


REFUSED_BY_BOTH = {
    "mutable default": "@dataclass\nclass Made:\n a: list[int] = []",
    "mutable default of field": "@dataclass\nclass Made:\n a: dict[int, int] = field(default={})",
    "order of defaults": "@dataclass\nclass Made:\n a: int = 1\n b: int",
    "order of inherited": "@dataclass\nclass A:\n a: int = 1\n@dataclass\nclass Made(A):\n b: int",
    "frozen of other": "@dataclass\nclass A:\n a: int\n@dataclass(frozen=True)\nclass Made(A):\n b: int",
    "other of frozen": "@dataclass(frozen=True)\nclass A:\n a: int\n@dataclass\nclass Made(A):\n b: int",
    "own slots": "@dataclass(slots=True)\nclass Made:\n __slots__ = ('a',)\n a: int",
    "two defaults": "@dataclass\nclass Made:\n a: list[int] = field(default=1, default_factory=list)",
    "no annotation": "@dataclass\nclass Made:\n a = field(default=1)",
    "own setattr": "@dataclass(frozen=True)\nclass Made:\n a: int\n def __setattr__(self, name, value): pass",
}
REFUSED_BY_RECORDS = {
    "order": "@dataclass(order=True)\nclass Made:\n a: int",
    "kw_only": "@dataclass(kw_only=True)\nclass Made:\n a: int",
    "unsafe_hash": "@dataclass(unsafe_hash=True)\nclass Made:\n a: int",
    "init": "@dataclass(init=False)\nclass Made:\n a: int",
    "kw_only field": "@dataclass\nclass Made:\n a: int = field(kw_only=True)",
    "init of field": "@dataclass\nclass Made:\n a: int = field(init=False, default=1)",
    "hash of field": "@dataclass\nclass Made:\n a: int = field(hash=False)",
    "InitVar": "@dataclass\nclass Made:\n a: InitVar[int]\n def __post_init__(self, a): pass",
    "KW_ONLY": "@dataclass\nclass Made:\n _: KW_ONLY\n a: int",
    "own init": "@dataclass\nclass Made:\n a: int\n def __init__(self): pass",
    "own setattr": "@dataclass\nclass Made:\n a: int\n def __setattr__(self, name, value): pass",
    "own slots": "@dataclass\nclass Made:\n __slots__ = ('a',)\n a: int",
    "dict of slots": "@dataclass(slots=True)\nclass A:\n a: int\n@dataclass\nclass Made(A):\n b: int",
    "default of a base": "@dataclass\nclass A:\n a: int = 1\n@dataclass\nclass Made(A):\n a: int",
}


@pytest.mark.parametrize("source", REFUSED_BY_BOTH.values(), ids=REFUSED_BY_BOTH)
def test_what_the_standard_module_refuses_is_refused(source):
    with pytest.raises((TypeError, ValueError)):
        make(dataclasses, source)
    with pytest.raises(TypeError):
        make(records, source)


@pytest.mark.parametrize("source", REFUSED_BY_RECORDS.values(), ids=REFUSED_BY_RECORDS)
def test_what_records_do_not_support_is_refused_when_the_class_is_made(source):
    make(dataclasses, source)
    with pytest.raises(TypeError):
        make(records, source)


def test_records_and_dataclasses_do_not_derive_from_each_other():
    with pytest.raises(TypeError, match="cannot derive from the dataclass Standard"):
        dataclass(type("Record", (dataclasses.make_dataclass("Standard", ["a"]),), {}))
    with pytest.raises(AttributeError):
        dataclasses.dataclass(type("Standard", (Bag,), {}))


def test_a_class_with_an_initialiser_of_its_own_has_its_signature():
    class Named(Bag):
        def __init__(self, name):
            super().__init__(name, [1])

    assert str(inspect.signature(Named)) == "(name)" and Named("a") != Bag("a", [1])
    assert str(inspect.signature(Bag)) == "(name: 'str', things: 'list[int]' = <factory>) -> None"


def test_fields_of_inherited_records_come_first():
    assert [each.name for each in fields(Solid)] == ["x", "y", "label", "z"]
    assert Solid(1, 2) == Solid(1, 2, "other", 0) and Solid(1, 2).label == "solid" and Solid(1, 2).sum == 3
    assert Solid(1, 2) != Point(1, 2) and not hasattr(Solid(1), "__dict__")


def test_fields_tell_what_was_declared():
    x, y, label, _ = fields(Solid)
    assert (x.name, x.annotation, x.required, x.default, dict(x.metadata)) == ("x", "int", True, None, {})
    assert (y.annotation, y.required, y.default) == ("int", False, 0)
    assert (label.default, label.compare, label.metadata) == ("solid", False, {"unit": "mm"})
    assert repr(label) == "<field label: str>"
    _, things = fields(Bag("one"))
    assert not things.required and things.default == [] and things.default is not things.default
    assert things.annotation == "list[int]"
    with pytest.raises(TypeError, match="int is not a record"):
        fields(1)


def test_annotations_that_are_not_text_are_told_as_text():
    names = {"dataclass": dataclass, "ClassVar": ClassVar, "__name__": __name__}
    source = "@dataclass\nclass Made:\n a: int\n c: ClassVar[int] = 1\n b: list[int] | None = None"
    exec(compile(source, "<records>", "exec", dont_inherit=True), names)
    assert [(each.name, each.annotation) for each in fields(names["Made"])] == [("a", "int"), ("b", "list[int] | None")]


def test_frozen_ones_are_values():
    assert hash(Point(1, 2)) == hash(Point(1, 2, "other")) and Point(1) != (1, 0, "")
    for original in (Point(1, 2, "a"), Solid(1, 2, "a"), Bag("one", [1])):
        for copied in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original), copy.copy(original)):
            assert copied == original and asdict(copied) == asdict(original)
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)


def test_each_record_has_defaults_of_its_own():
    one, other = Bag("one"), Bag("one")
    assert one == other
    one.things.append(997)
    assert other.things == [] and one != other


def test_a_record_within_itself_is_shown():
    bag = Bag("one")
    bag.things.append(bag)
    assert repr(bag) == "Bag(name='one', things=[...])"


def test_what_is_identical_is_equal():
    not_a_number = float("nan")
    assert Point(not_a_number) == Point(not_a_number) and Point(float("nan")) != Point(float("nan"))


def test_the_functions_of_dataclasses_take_them():
    assert replace(Point(1, 2), y=3) == dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
    assert dataclasses.asdict(Bag("one", [1])) == asdict(Bag("one", [1])) == {"name": "one", "things": [1]}
    assert dataclasses.is_dataclass(Point) and dataclasses.astuple(Point(1)) == (1, 0, "")


def test_asdict_leaves_records_within_as_they_are():
    assert asdict(Bag("outer", [Point(1)])) == {"name": "outer", "things": [Point(1)]}


def test_named_tuples():
    assert Pair(1) == (1, 2) and Pair(1, right=4).sum == 5 and Pair._fields == ("left", "right")
    assert Pair(1)._replace(left=3) == pickle.loads(pickle.dumps(Pair(3))) == Pair(3)
    assert (Pair.__module__, Pair.__qualname__, Pair.__doc__) == (__name__, "Pair", "Two numbers.")
    assert Pair._field_defaults == {"right": 2} and Pair.__annotations__ == {"left": "int", "right": "int"}


@pytest.mark.parametrize(
    "source",
    [
        "class Made(NamedTuple):\n a: int = 1\n b: int",
        "class Made(NamedTuple):\n a: int\n def __new__(cls): pass",
        "class Made(NamedTuple):\n a: int\n _fields = ('a',)",
        "class Made(NamedTuple, Mixed):\n a: int",
    ],
)
def test_what_named_tuples_refuse(source):
    class Mixed:
        pass

    with pytest.raises((TypeError, AttributeError)):
        exec(source, {"NamedTuple": typing.NamedTuple, "Mixed": Mixed, "__name__": __name__})
    with pytest.raises(TypeError):
        exec(source, {"NamedTuple": NamedTuple, "Mixed": Mixed, "__name__": __name__})


def test_type_checkers_refuse_what_records_refuse(tmp_path):
    lines = {
        "Point(1, y=2); replace(Point(1), x=2); asdict(Point(1)); fields(Point)[0].annotation.upper()": "",
        "Point()": "call-arg",
        "Point('one')": "arg-type",
        "Point(1, 2, 3)": "call-arg",
        "Point(1).x = 2": "misc",
        "Point(1) < Point(2)": "operator",
        "replace(Point(1), z=2)": "call-arg",
        "asdict(1)": "arg-type",
        "reveal_type(Point.__match_args__)[2]": "misc",
        "field(default=1, default_factory=int)": "call-overload",
        "field(init=False)": "call-overload",
        "field(hash=True)": "call-overload",
        "field(kw_only=True)": "call-overload",
        "dataclass(order=True)": "call-overload",
        "dataclass(kw_only=True)": "call-overload",
        "dataclass(unsafe_hash=True)": "call-overload",
        "dataclass(init=False)": "call-overload",
        "dataclass(weakref_slot=True)": "call-overload",
    }
    head = [
        "from usdtkit.records import asdict, dataclass, field, fields, replace",
        "@dataclass(frozen=True, slots=True)",
        "class Point:",
        "    x: int",
        "    y: int = field(default=0, compare=False)",
        "",
    ]
    file = tmp_path / "checked.py"
    file.write_text("\n".join([*head, *lines]) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    seen = {int(line.split(":")[1]): line.rpartition("[")[2].rstrip("]") for line in errors}
    expected = {number: code for number, code in enumerate(lines.values(), start=len(head) + 1) if code}
    assert seen == expected, checked.stdout
