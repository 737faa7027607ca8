"""The order of locks: which cycles are found, and what is none."""

import itertools

from usdtkit.providers.lockorder import LockOrder

ONE, TWO, THREE = (1, 11), (1, 12), (1, 13)  # threads
A, B, C, D = ((1, 0xA0), (1, 0xB0), (1, 0xC0), (1, 0xD0))


def nest(order, thread, *mutexes):
    """Lock them one within the other, and unlock them; what was found."""
    found = [cycle for mutex in mutexes for cycle in order.locked(thread, mutex, f"{thread}{mutex}")]
    for mutex in reversed(mutexes):
        order.unlocked(thread, mutex)
    return found


def cycle_of(cycle):
    assert all(edge.wanted == after.held for edge, after in itertools.pairwise([*cycle, cycle[0]]))
    return {edge.held for edge in cycle}


def test_the_same_order_is_none():
    order = LockOrder()
    assert nest(order, ONE, A, B, C) == nest(order, TWO, A, C) == nest(order, THREE, B, C) == []
    assert {(edge.held, edge.wanted) for edge in order.edges()} == {(A, B), (A, C), (B, C)}
    assert order.mismatched == 0


def test_opposite_order_is_one_and_told_once():
    order = LockOrder()
    assert nest(order, ONE, A, B) == []
    (cycle,) = nest(order, TWO, B, A)
    assert cycle_of(cycle) == {A, B}
    assert (cycle[0].wanted_at, cycle[0].held_at) == (f"{TWO}{A}", f"{TWO}{B}")
    assert (cycle[1].wanted_at, cycle[1].held_at) == (f"{ONE}{B}", f"{ONE}{A}")
    assert nest(order, TWO, B, A) == nest(order, ONE, A, B) == []


def test_the_shortest_of_many():
    order = LockOrder()
    nest(order, ONE, A, B)
    nest(order, ONE, B, C)
    nest(order, ONE, C, D)
    assert [cycle_of(cycle) for cycle in nest(order, TWO, D, A)] == [{A, B, C, D}]
    assert [cycle_of(cycle) for cycle in nest(order, TWO, C, A)] == [{A, B, C}]


def test_one_other_mutex_that_guards_all_edges():
    order = LockOrder()
    assert nest(order, ONE, D, A, B) == nest(order, TWO, D, B, A) == []
    (cycle,) = nest(order, THREE, A, B)  # now without the guard
    assert cycle_of(cycle) == {A, B}


def test_two_different_guards_guard_nothing():
    order = LockOrder()
    assert nest(order, ONE, C, A, B) == []
    assert [cycle_of(cycle) for cycle in nest(order, TWO, D, B, A)] == [{A, B}]


def test_a_try_waits_for_nothing_but_holds():
    order = LockOrder()
    nest(order, ONE, A, B)
    order.locked(TWO, B, "")
    assert order.locked(TWO, A, "", waited=False) == []
    assert order.locked(TWO, C, "") == []
    assert (A, C) in {(edge.held, edge.wanted) for edge in order.edges()}


def test_a_recursive_mutex_orders_nothing_the_second_time():
    order = LockOrder()
    order.locked(ONE, A, "")
    order.locked(ONE, B, "")
    assert order.locked(ONE, A, "") == []
    order.unlocked(ONE, A)
    nest(order, ONE, C)
    assert (A, C) in {(edge.held, edge.wanted) for edge in order.edges()}


def test_an_address_that_becomes_another_mutex():
    order = LockOrder()
    nest(order, ONE, A, B)
    order.forget(A)
    assert nest(order, TWO, B, A) == []
    assert {(edge.held, edge.wanted) for edge in order.edges()} == {(B, A)}


def test_what_was_locked_before_the_trace():
    order = LockOrder()
    order.unlocked(ONE, A)
    assert order.mismatched == 1


def test_processes_share_no_mutex():
    order = LockOrder()
    nest(order, ONE, A, B)
    assert nest(order, (2, 11), (2, 0xB0), (2, 0xA0)) == []
