"""Our records are what the module dataclasses would have made, as far as they go."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from usdtkit.records import NamedTuple, asdict, dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    label: str = field(default="", compare=False)

    @property
    def sum(self):
        return self.x + self.y


@dataclass
class Bag:
    name: str
    things: list[int] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Positive:
    number: int = 1

    def __post_init__(self):
        if self.number < 1:
            raise ValueError("not positive")


@dataclass(frozen=True)
class Held:
    number: int
    by: object = field(default=None, compare=False, repr=False)


class Pair(NamedTuple):
    left: int
    right: int = 2

    @property
    def sum(self):
        return self.left + self.right


def test_fields_that_count_in_nothing():
    assert Held(1, "a") == Held(1) and hash(Held(1, "a")) == hash(Held(1))
    assert repr(Held(1, "a")) == "Held(number=1)" and replace(Held(1, "a"), number=2).by == "a"


def test_fields_by_place_by_name_and_by_default():
    assert Point(1) == Point(x=1) == Point(1, 0) == Point(1, y=0, label="elsewhere")
    assert Point(1).sum == 1 and repr(Point(1, label="a")) == "Point(x=1, y=0, label='a')"
    for wrong in ({}, {"z": 1}, {"x": 1, "z": 1}):
        with pytest.raises(TypeError):
            Point(**wrong)
    for wrong in ((1, 2, "", 4), ()):
        with pytest.raises(TypeError):
            Point(*wrong)
    with pytest.raises(TypeError):
        Point(1, x=1)


def test_frozen_ones_are_values():
    assert hash(Point(1, 2)) == hash(Point(1, 2, "other")) and Point(1) != Point(2) and Point(1) != (1, 0, "")
    for change in (
        lambda: setattr(Point(1), "x", 2),
        lambda: delattr(Point(1), "x"),
        lambda: setattr(Point(1), "z", 2),
    ):
        with pytest.raises(AttributeError):
            change()
    assert not hasattr(Point(1), "__dict__")
    for copied in (pickle.loads(pickle.dumps(Point(1, 2, "a"))), copy.deepcopy(Point(1, 2, "a"))):
        assert asdict(copied) == {"x": 1, "y": 2, "label": "a"}
    match Point(3, 4):
        case Point(x, y):
            assert (x, y) == (3, 4)


def test_others_can_change_and_have_defaults_of_their_own():
    one, other = Bag("one"), Bag("one")
    assert one == other
    one.things.append(997)
    assert other.things == [] and one != other
    with pytest.raises(TypeError):
        hash(one)


def test_what_is_done_after_the_fields_are_set():
    assert Positive(1) != Positive(1)
    with pytest.raises(ValueError, match="not positive"):
        Positive(0)


def test_the_functions_of_dataclasses_take_them():
    assert replace(Point(1, 2), y=3) == dataclasses.replace(Point(1, 2), y=3) == Point(1, 3)
    assert dataclasses.asdict(Bag("one", [1])) == asdict(Bag("one", [1])) == {"name": "one", "things": [1]}
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "label"]


def test_named_tuples():
    assert Pair(1) == (1, 2) and Pair(1, right=4).sum == 5 and Pair._fields == ("left", "right")
    assert Pair(1)._replace(left=3) == pickle.loads(pickle.dumps(Pair(3))) == Pair(3)
    assert (Pair.__module__, Pair.__qualname__) == (__name__, "Pair")
