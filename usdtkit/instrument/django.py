"""Django: spans of each middleware, of the view, and of each template that is rendered.

Input: the functions by which Django builds its chain of middleware (once, at the start, which is why these are wrapped
for good), and those that call views and templates, which are replaced while somebody traces. Output: the spans
django:middleware, view and template, each with a name; the one around it is its parent. The request itself, with its
route, is of `wsgi` or `asgi`, and the queries of the ORM are of `dbapi`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, wraps
from types import ModuleType
from typing import Any

from usdtkit.instrument import watcher
from usdtkit.instrument.imports import when_imported
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("django")
_middleware = _provider.define_span("middleware", name="str", doc="A middleware, with all that it calls.")
_view = _provider.define_span("view", name="str", doc="The view of a request.")
_template = _provider.define_span("template", name="str", doc="A template is rendered, with those that it includes.")


@cache
def install() -> None:
    """Publish what Django does in this process from now on. A second call does nothing."""
    _provider.load()
    when_imported("django", "django.core.handlers.base", _wrap_handlers)
    when_imported("django", "django.template.base", _wrap_templates)


def _wrap_handlers(module: ModuleType) -> Iterator[str]:
    is_async, convert = module.iscoroutinefunction, module.convert_exception_to_response

    @wraps(convert)
    def converted(get_response: Any) -> Any:
        # The innermost one is the handler's own method.
        if isinstance(getattr(get_response, "__self__", None), module.BaseHandler):
            return convert(get_response)
        return convert(_spanned(_middleware, lambda: _name(get_response), get_response, is_async))

    def making(make_view_atomic: Any) -> Any:
        @wraps(make_view_atomic)
        def traced(handler: Any, view: Any) -> Any:
            return _spanned(_view, lambda: _name(view), make_view_atomic(handler, view), is_async)

        return traced

    module.convert_exception_to_response = converted  # type: ignore[attr-defined]
    yield "convert_exception_to_response"
    handler = module.BaseHandler
    watcher.watch(watcher.replaced(handler, "make_view_atomic", making), _view.start, _view.done)
    yield f"{handler.__name__}.make_view_atomic"


def _wrap_templates(module: ModuleType) -> Iterator[str]:
    def rendering(render: Any) -> Any:
        @wraps(render)
        def traced(template: Any, *args: Any, **keywords: Any) -> Any:
            with _template(ask(lambda: str(template.name or ""), "")):
                return render(template, *args, **keywords)

        return traced

    watcher.watch(watcher.replaced(module.Template, "render", rendering), _template.start, _template.done)
    yield f"{module.Template.__name__}.render"


def _spanned(span: Any, name: Callable[[], str], function: Any, is_async: Callable[[Any], bool]) -> Any:
    """Return a function, as sync or async as the given one, that makes a span of each call."""
    found = ask(name, "")
    if is_async(function):

        @wraps(function)
        async def traced_async(*args: Any, **keywords: Any) -> Any:
            with span(found):
                return await function(*args, **keywords)

        return traced_async

    @wraps(function)
    def traced(*args: Any, **keywords: Any) -> Any:
        with span(found):
            return function(*args, **keywords)

    return traced


def _name(thing: Any) -> str:
    """Return the full name of a view or middleware: that of its class, or of the function that has made it."""
    named = getattr(thing, "view_class", None) or (thing if hasattr(thing, "__qualname__") else type(thing))
    return f"{named.__module__}.{named.__qualname__.partition('.<locals>')[0]}"
