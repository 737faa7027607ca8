"""Requests as applications see them: each fires once, with what became of it, and no server notices."""

import asyncio
from wsgiref.util import FileWrapper

import pytest

from usdtkit.instrument import asgi, routes, watcher, wsgi
from usdtkit.testing import record_probes

ENVIRON = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/shop", "PATH_INFO": "/order"}


def done_of(fired, provider):
    assert len(fired.of(f"{provider}:request__start")) == len(fired.of(f"{provider}:request__done"))
    return [(each["path"], each["status"], each["error"]) for each in fired.of(f"{provider}:request__done")]


def answering(body, status="200 OK", *exc_info):
    def application(environ, start_response):
        start_response(status, [], *exc_info)
        return body

    return application


def serve(application, **more):
    body = wsgi.wrap(application)(ENVIRON | more, lambda status, headers, exc_info=None: None)
    try:
        return list(body)
    finally:
        body.close()


def fails():
    yield b"one"
    raise ValueError


def test_a_body_that_fails():
    with record_probes() as fired:
        with pytest.raises(ValueError):
            serve(answering(fails()))
    assert done_of(fired, "wsgi") == [("/shop/order", 200, "ValueError")]


def test_an_application_that_fails():
    def application(environ, start_response):
        raise KeyError

    with record_probes() as fired:
        with pytest.raises(KeyError):
            serve(application)
    assert done_of(fired, "wsgi") == [("/shop/order", 0, "KeyError")]


def test_an_exception_of_which_a_response_is_made():
    error = LookupError()
    with record_probes() as fired:
        serve(answering([b"sorry"], "500 Sorry", (LookupError, error, None)))
        serve(answering([b"not here"], "404 Not Found", (LookupError, error, None)))
    assert done_of(fired, "wsgi") == [("/shop/order", 500, "LookupError"), ("/shop/order", 404, "")]


@pytest.mark.parametrize("body", [[b"one"], [], (each for each in [b"one"]), {b"one": 1}.keys()])
def test_a_body_has_a_length_if_that_of_the_application_has(body):
    with record_probes():
        wrapped = wsgi.wrap(answering(body))(dict(ENVIRON), lambda status, headers: None)
        assert hasattr(wrapped, "__len__") == hasattr(body, "__len__")
        assert bool(wrapped) == bool(body)
        wrapped.close()


def test_a_file_stays_what_the_server_knows(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with record_probes() as fired, path.open("rb") as file:
        body = wsgi.wrap(answering(FileWrapper(file)))(
            ENVIRON | {"wsgi.file_wrapper": FileWrapper}, lambda status, headers: None
        )
        assert type(body) is FileWrapper
        assert (list(body), fired.of("wsgi:request__done")) == ([b"content"], [])
        body.close()
        assert file.closed
    assert done_of(fired, "wsgi") == [("/shop/order", 200, "")]


async def ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body"})


def ask(application):
    async def send(message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/order"}
    return asyncio.run(asgi.wrap(application)(scope, None, send))


def test_applications_within_each_other_are_one_request():
    async def outer(scope, receive, send):
        await asgi.wrap(ok)(dict(scope), receive, send)

    with record_probes() as fired:
        ask(outer)
        ask(outer)
        serve(wsgi.wrap(lambda environ, start: wsgi.wrap(answering([]))(environ, start)))
    assert done_of(fired, "asgi") == [("/order", 200, "")] * 2
    assert done_of(fired, "wsgi") == [("/shop/order", 200, "")]


def test_a_response_that_is_sent_while_an_exception_is_handled():
    async def application(scope, receive, send):
        try:
            raise ValueError
        except ValueError:
            await send({"type": "http.response.start", "status": 500})
            await send({"type": "http.response.body"})
            raise

    with record_probes() as fired:
        with pytest.raises(ValueError):
            ask(application)
    assert done_of(fired, "asgi") == [("/order", 500, "ValueError")]


def test_a_request_that_is_cancelled():
    async def application(scope, receive, send):
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    with record_probes() as fired:
        with pytest.raises(asyncio.CancelledError):
            ask(application)
    assert done_of(fired, "asgi") == [("/order", 0, "CancelledError")]


def test_a_function_that_two_interfaces_replace_is_its_own_again():
    class Framework:
        def resolve(self):
            return 1

    original = Framework.resolve
    for_both = routes.Shared(watcher.replaced(Framework, "resolve", lambda resolve: lambda self: resolve(self) + 1))
    for _ in range(3):  # wsgi and asgi come, and go in the same order
        for_both(True)
        for_both(True)
        assert Framework().resolve() == 2
        for_both(False)
        assert Framework().resolve() == 2
        for_both(False)
        assert Framework.resolve is original
