"""Types of events, decoders and columns: nothing that Python code can do to them changes or crashes them."""

import copy
import copyreg
import gc
import pickle
import weakref
from pathlib import Path

import pytest
from compiled import run_sanitised

from usdtkit import _events
from usdtkit._events import Decoder, Event, Texts

FIELDS = ("time_ns", "pid", "tid", "probe")


def plain():
    return _events.make(("a", "b"), (1, 2))


def subclass_of_the_base():
    return type("Shadow", (Event,), {"_fields": ("x", "y", "z")})


REFUSED = {
    "assigned": lambda: setattr(type(plain()), "_fields", ()),
    "deleted": lambda: delattr(type(plain()), "_fields"),
    "by type's own": lambda: type.__setattr__(type(plain()), "__match_args__", ()),
    "of the base": lambda: setattr(Event, "_asdict", None),
    "of decoders": lambda: setattr(Decoder, "anything", 1),
    "of columns": lambda: setattr(Texts, "data", 1),
    "a value": lambda: setattr(plain(), "a", 3),
    "a value by object's own": lambda: object.__setattr__(plain(), "a", 3),
    "a value deleted": lambda: object.__delattr__(plain(), "a"),
    "a new attribute": lambda: setattr(plain(), "c", 3),
    "a subclass": lambda: type("Shadow", (type(plain()),), {"_fields": ()}),
    "a subclass of decoders": lambda: type("Shadow", (Decoder,), {}),
    "a subclass of columns": lambda: type("Shadow", (Texts,), {}),
    "an event of a subclass": lambda: subclass_of_the_base()(),
    "by object's own": lambda: object.__new__(subclass_of_the_base()),
    "by object's own, of a type": lambda: object.__new__(type(plain())),
    "as pickle would": lambda: copyreg.__newobj__(subclass_of_the_base()),
    "the class of an event": lambda: setattr(plain(), "__class__", subclass_of_the_base()),
    "the class of an event, another": lambda: setattr(plain(), "__class__", type(_events.make(("a",), (1,)))),
}


@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_nothing_of_them_can_be_changed(attempt):
    event = plain()
    with pytest.raises((TypeError, AttributeError)):
        attempt()
    assert (event._fields, event._asdict(), repr(event)) == (("a", "b"), {"a": 1, "b": 2}, "<Event {'a': 1, 'b': 2}>")
    assert event == (1, 2) == copy.deepcopy(event) == pickle.loads(pickle.dumps(event))
    assert type(plain()) is type(event)


class Stacks:
    def get(self, id):
        return None


def test_decoders_in_a_cycle_are_collected():
    found = []
    for _ in range(3):
        stacks = Stacks()
        stacks.decoder = Decoder((*FIELDS, "stack"), (("S", 24, 8, 8, stacks.get),), str, bytes)
        found.append(weakref.ref(stacks))
    del stacks
    gc.collect()
    assert [each() for each in found] == [None] * 3


def test_events_in_a_cycle_are_collected():
    stacks, holder = Stacks(), []
    holder += [_events.make(("a",), (holder,)), stacks]
    found = weakref.ref(stacks)
    del holder, stacks
    gc.collect()
    assert found() is None


def test_events_of_numbers_and_texts_are_none_of_the_collectors_business():
    assert not gc.is_tracked(_events.make(("a", "b", "c"), (1, "x", None)))
    assert gc.is_tracked(_events.make(("a", "b"), (1, [])))


def test_an_event_that_holds_an_event_that_holds_an_event():
    event = plain()
    for _ in range(300_000):
        event = _events.make(("inner",), (event,))
    del event
    gc.collect()


def test_a_kind_that_ends_the_list_of_kinds_is_none():
    for kind in ("\0", "x", "\x80", "ö"):
        with pytest.raises((ValueError, OverflowError)):
            Decoder((*FIELDS, "n"), ((kind, 24, 0, 0, None),), str, bytes)


@pytest.mark.parametrize(("kind", "names"), [("S", None), ("S", {1: "one"}), ("i64", id), ("q", [])])
def test_what_makes_names_or_objects_of_numbers_fits_their_kind(kind, names):
    with pytest.raises((TypeError, ValueError)):
        Decoder((*FIELDS, "n"), ((kind, 24, 8, 8, names),), str, bytes)


def test_all_of_this_under_address_and_undefined_behaviour_sanitisers(tmp_path):
    run_sanitised(tmp_path, "events", Path(__file__), "not sanitisers")
