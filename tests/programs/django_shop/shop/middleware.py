"""Middleware written as a function, and as a class without Django's mixin, for sync and async alike."""

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpResponseForbidden
from django.utils.decorators import sync_and_async_middleware


@sync_and_async_middleware
def stamped(get_response):
    """Put a header into each response."""
    if iscoroutinefunction(get_response):

        async def middleware(request):
            response = await get_response(request)
            response["X-Shop"] = "django"
            return response

    else:

        def middleware(request):
            response = get_response(request)
            response["X-Shop"] = "django"
            return response

    return middleware


class Refusing:
    """Refuse what is below /forbidden, so that no route is ever looked up for it."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        if request.path.startswith("/forbidden"):
            return self._refuse() if iscoroutinefunction(self.get_response) else HttpResponseForbidden()
        return self.get_response(request)

    async def _refuse(self):
        return HttpResponseForbidden()
