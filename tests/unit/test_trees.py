"""Starts and ends of spans, in any order and with losses, become trees."""

import random

from usdtkit.language import trees
from usdtkit.language.trees import Trees


def start(number, parent=0, **arguments):
    ids = {"span": number, "parent_span": parent, "trace_id": "ab" * 16}
    return {"probe": f"shop:s{number}__start", "time_ns": number, "arguments": ids | arguments}


def done(number, error=""):
    arguments = {"span": number, "latency_ns": 10 * number, "error": error}
    return {"probe": f"shop:s{number}__done", "time_ns": 0, "arguments": arguments}


def lines(rows):
    return [(row["text"], row["latency_ns"]) for row in rows]


def taken(tree, *rows):
    return [line for row in rows for line in lines(tree.take(row))]


def test_a_tree_is_shown_when_all_of_it_has_ended():
    tree = Trees()
    assert taken(tree, start(1, order_id=42), start(2, 1), start(3, 2), done(3, "ValueError"), done(2)) == []
    assert taken(tree, start(4, 1), done(1)) == []
    assert taken(tree, done(4)) == [("s1 order_id=42", 10), ("  s2", 20), ("    s3 ValueError", 30), ("  s4", 40)]
    assert taken(tree, done(1), done(9)) == []
    assert [*tree.rest()] == []


def test_the_ids_and_values_are_in_the_row():
    tree = Trees()
    (row,) = [*tree.take(start(1, 7, card="visa")), *tree.take(done(1))]
    assert row | {"span": 1, "parent_span": 7, "trace_id": "ab" * 16, "depth": 0, "error": ""} == row
    assert (row["arguments"], row["probe"], row["time_ns"]) == ({"card": "visa"}, "shop:s1__start", 1)


def test_what_is_open_at_the_end_and_other_probes():
    tree = Trees()
    other = {"probe": "shop:other", "arguments": {"span": 1}}
    assert taken(tree, start(1), start(2, 1), other, done(2), start(3), start(4, 3)) == []
    assert lines(tree.rest()) == [("s1 open", None), ("  s2", 20), ("s3 open", None), ("  s4 open", None)]
    assert [*tree.rest()] == []


def test_one_that_begins_when_its_tree_has_been_shown():
    tree = Trees()
    assert taken(tree, start(1), done(1), start(2, 1), start(3, 2), done(3), done(2)) == [
        ("s1", 10),
        ("s2", 20),
        ("  s3", 30),
    ]


def test_lines_of_hostile_texts_stay_lines():
    tree = Trees()
    row = start(1, name="a\n\x1b[31m")
    assert taken(tree, row | {"probe": "shop:a\nb__start"}, done(1, "\n")) == [
        ('a\\x0ab name="a\\x0a\\x1b[31m" \\x0a', 10)
    ]


def test_probes_of_others_with_arguments_of_these_names():
    tree = Trees()
    for names, values in ((trees.START, (None, "a", 3)), (trees.END, (1, "a", 3)), (trees.END, (b"1", 2, 3))):
        row = {"probe": "other:a__start", "arguments": dict(zip(names, values, strict=True))}
        assert taken(tree, start(1), row) == []
    assert taken(tree, {"probe": "other:b", "arguments": {"span": 1, "latency_ns": 2, "error": 3}}) == [("s1 3", 2)]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(trees, "MOST_SPANS", 10)
    tree = Trees()
    shown = taken(tree, start(1), *(start(number, 1) for number in range(2, 11)))
    assert shown == []
    assert taken(tree, start(11, 1))[0] == ("s1 open", None)
    assert taken(tree, *(done(number) for number in range(1, 12))) == []
    assert not tree._spans and not tree._tops


def test_random_trees_in_random_orders():
    choose = random.Random(997)
    parents = {number: choose.randrange(number) for number in range(1, 998)}
    tree, rows, open_spans, begun = Trees(), [], [], 0
    while begun < 997 or open_spans:
        if begun < 997 and (not open_spans or choose.random() < 0.6):
            begun += 1
            open_spans.append(begun)
            rows += tree.take(start(begun, parents[begun]))
        else:
            rows += tree.take(done(open_spans.pop(choose.randrange(len(open_spans)))))
    rows += tree.rest()
    assert sorted(row["span"] for row in rows) == list(range(1, 998))
    above = []
    for row in rows:
        del above[row["depth"] :]
        assert not above or row["parent_span"] == above[-1]
        above.append(row["span"])
