"""The ring read in C, in place, under the address and undefined-behaviour sanitisers, against a model of ten lines."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
SIZE = 4096
HEADER = 8


@pytest.fixture(scope="module")
def ring(compile_c):
    """ring(commands, start=0) -> the lines that ring.c prints."""
    sanitise = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-missing-field-initializers"]
    source = Path(__file__).with_name("ring.c").read_text()
    binary = compile_c(source, "-O1", "-Wextra", "-Wno-unused-function", "-I", str(ROOT / "native"), *sanitise)

    def run(commands, start=0):
        done = subprocess.run(
            [binary, str(SIZE), str(start)], input="\n".join(commands), text=True, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def step(length):
    return (length + HEADER + 7) // 8 * 8


def payload(number, length):
    return f"{length}/{sum((7 * number + i + 1) % 256 for i in range(length))}"


class Model:
    """What the drain must say."""

    def __init__(self):
        self.records = []  # [length, state] of those that are still in the ring
        self.numbers = []
        self.made = 0

    def reserve(self, length):
        if sum(step(used) for used, _ in self.records) + step(length) > SIZE:
            return ["full"]
        self.records.append([length, "busy"])
        self.numbers.append(self.made)
        self.made += 1
        return []

    def settle(self, number, state):
        if number in self.numbers:
            self.records[self.numbers.index(number)][1] = state

    def read(self, enough):
        taken, said = 0, []
        while self.records and self.records[0][1] != "busy" and taken < enough:
            # What was discarded goes with what follows it.
            while self.records and self.records[0][1] == "discarded":
                taken += step(self.records.pop(0)[0])
                del self.numbers[0]
            if self.records and self.records[0][1] == "submitted":
                length, _ = self.records.pop(0)
                taken += step(length)
                said.append(payload(self.numbers.pop(0), length))
        return [" ".join([str(taken), *said])]


def test_a_record_that_is_busy_holds_back_those_behind_it(ring):
    said = ring(["r 5", "r 6", "c 1", "x 4096", "c 0", "x 4096", "x 4096"])
    assert said == ["0", f"32 {payload(0, 5)} {payload(1, 6)}", "0"]


def test_discarded_records_are_passed_over(ring):
    assert ring(["r 5", "r 6", "r 7", "d 0", "c 1", "d 2", "x 4096"]) == [f"48 {payload(1, 6)}"]


def test_discarded_records_make_room(ring):
    assert ring([f"r {SIZE - HEADER}", "d 0", "x 1", "r 0"]) == [str(SIZE)]


def test_a_record_larger_than_enough_is_taken_whole(ring):
    assert ring(["r 100", "c 0", "x 0", "x 1"]) == ["0", f"112 {payload(0, 100)}"]


def test_what_is_more_than_enough_comes_next_time(ring):
    commands = ["r 8", "r 8", "r 8", "c 0", "c 1", "c 2", "x 17", "x 17"]
    assert ring(commands) == [f"32 {payload(0, 8)} {payload(1, 8)}", f"16 {payload(2, 8)}"]


@pytest.mark.parametrize("before_the_end", [8, 16, 24, 1000])
def test_a_record_across_the_end_of_the_ring(ring, before_the_end):
    assert ring(["r 2000", "c 0", "x 4096"], start=97 * SIZE - before_the_end) == [f"2008 {payload(0, 2000)}"]


def test_the_whole_ring_in_one_record(ring):
    assert ring([f"r {SIZE - HEADER}", "r 0", "c 0", f"x {SIZE}"], start=SIZE // 2) == [
        "full",
        f"{SIZE} {payload(0, SIZE - HEADER)}",
    ]


COMMANDS = st.one_of(
    st.tuples(st.just("r"), st.sampled_from([0, 1, 7, 8, 9, 100, 1000, 2047, 4000, 4088])),
    st.tuples(st.sampled_from("cd"), st.integers(0, 30)),
    st.tuples(st.just("x"), st.sampled_from([0, 8, 16, 200, 2048, 4096, 1 << 20])),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(COMMANDS, max_size=60), st.integers(0, 3 * SIZE // 8))
def test_any_sequence_of_what_a_kernel_does(ring, commands, start):
    model, expected, settled, sent = Model(), [], set(), []
    for command, value in commands:
        if command in "cd":
            if value >= model.made or value in settled:  # once only, as the kernel's verifier sees to
                continue
            settled.add(value)
            model.settle(value, "submitted" if command == "c" else "discarded")
        elif command == "r":
            expected += model.reserve(value)
        else:
            expected += model.read(value)
        sent.append(f"{command} {value}")
    assert ring(sent, start=8 * start) == expected
