"""Programs in Ruby and PHP that call themselves in all ways that these languages have, and say which frames they have.

tests/programs/frames.rb and frames.php read a line with ways, call themselves so, one call within the other, say what
the language itself knows of its stack, call a function of libc, and wait for the next line.
"""

import random
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
COMMANDS = {"ruby": ("ruby", "--encoding=UTF-8", PROGRAMS / "frames.rb"), "php": ("php", PROGRAMS / "frames.php")}
CALLS = {"ruby": "getppid", "php": "usleep"}
"""The function of libc that is called once by each stack."""
_WAYS = {
    "ruby": """plain block blocks lambda_of defined evaluated of_object of_class rescued ensured fiber thread missing
        tapped looped caught sorted größe_mit_einem_namen_der_länger_als_ein_eingebetteter_string_ist in_class long""",
    "php": """plain fixed closure arrow mapped sorted called generated evaluated included magic text rescued fiber
        reflected größe""",
}


def ways_of(language, count):
    """So many lines for the program: all ways, and then random ones."""
    ways, chosen = _WAYS[language].split(), random.Random(997)
    lines = [ways, *([chosen.choice(ways) for _ in range(chosen.randrange(20))] for _ in range(count - 1))]
    return [" ".join(line) + "\n" for line in lines]


def said(line):
    """[(name, file, line)] of the frames that the program has said on a line, innermost first."""
    frames = [frame.split("\t") for frame in line.rstrip("\n").split("\v")]
    return [(name, file, int(number)) for name, file, number in frames]
