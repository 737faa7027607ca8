"""Which function of a stack is the Python function that called: the innermost that the program itself has."""

import pytest

from usdtkit.model import PythonCaller
from usdtkit.signatures.python import distance_of_code
from usdtkit.trace.memory import Frame, Remains
from usdtkit.trace.merging import PythonFrame
from usdtkit.trace.stacks import Stack, Stacks
from usdtkit.trace.symbols import Files


@pytest.mark.parametrize(
    ("file", "distance"),
    [
        ("/srv/shop.py", 0),
        ("shop.py", 0),
        ("<string>", 0),
        ("", 0),
        ("/home/ada/lib/python3/shop.py", 0),
        ("/usr/lib/python3/dist-packages/requests/api.py", 1),
        ("/srv/.venv/lib/python3.13t/site-packages/urllib3/connection.py", 1),
        ("/usr/lib/python3.11/socket.py", 2),
        ("/opt/lib64/python3.14t/threading.py", 2),
        ("/usr/lib/python311.zip/socket.py", 2),
        ("<frozen importlib._bootstrap>", 2),
    ],
)
def test_whose_code_a_file_is(file, distance):
    assert distance_of_code(file) == distance


SOCKET = Frame("python", "getaddrinfo", file="/usr/lib/python3.11/socket.py", line=962)
PACKAGE = Frame("python", "connect", file="/usr/lib/python3/dist-packages/urllib3/connection.py", line=7)
ORDER = Frame("python", "Shop.order", file="/srv/shop.py", line=41)
MAIN = Frame("python", "<module>", file="/srv/shop.py", line=99)


@pytest.mark.parametrize(
    ("functions", "caller"),
    [
        ([SOCKET, PACKAGE, ORDER, MAIN], ORDER),
        ([SOCKET, PACKAGE, SOCKET, PACKAGE], PACKAGE),
        ([SOCKET, SOCKET._replace(line=1)], SOCKET),
        ([], None),
    ],
)
def test_the_function_that_called(functions, caller):
    stacks = Stacks([], [])
    python = [PythonFrame(frame, is_entry=True) for frame in functions]
    stacks._stacks[7] = Stack(1, (), (), Remains((), (), Files()), python=python)
    found = stacks.known["pyframe"](7)
    assert found == (None if caller is None else PythonCaller(caller.name, caller.file, caller.line))
    assert caller is None or str(found) == caller.label
    assert stacks.known["pyframe"](0) is None
