"""Strings in pages that the traced program has not touched arrive all the same."""

from usdtkit import trace
from usdtkit.trace import cstr


def test_constants_that_nobody_has_read(compile_c, spawn, wait_for_line):
    program = spawn([compile_c("untouched.c")])
    wait_for_line(program, "ready")
    with trace.Session(pid=program.pid) as session:
        probe = session.usdt("lab:untouched")
        probe.emit(one=cstr(1, 100), two=cstr(2, 100))
        texts = probe.where(cstr(1) == "a string that nobody has read").count(text=cstr(2, 40))
        session.start()
        program.communicate("\n")
        (event,) = session
        assert texts.read() == {("from one page into the next",): 1}
    assert (event.one, event.two) == ("a string that nobody has read", "from one page into the next")
