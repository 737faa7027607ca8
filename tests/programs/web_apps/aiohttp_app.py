"""The application of tests in aiohttp, with another one below /mounted."""

import asyncio

from aiohttp import web


async def order(request):
    number = int(request.match_info["number"])
    if number % 10 == 7:
        raise web.HTTPNotFound
    return web.Response(text=str(number))


async def placed(request):
    await request.read()
    return web.Response(status=201)


async def fails(request):
    raise ValueError(request.match_info["number"])


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for each in range(int(request.match_info["number"])):
        await response.write(b"%d\n" % each)
    return response


async def slow(request):
    await asyncio.sleep(int(request.match_info["number"]) / 1000)
    return web.Response()


def make(arguments):
    """Return the application, for `python -m aiohttp.web`."""
    inner, app = web.Application(), web.Application()
    inner.router.add_get("/item/{number}", order)
    app.router.add_get("/order/{number}", order)
    app.router.add_post("/order/{number}", placed)
    app.router.add_get("/fails/{number}", fails)
    app.router.add_get("/stream/{number}", stream)
    app.router.add_get("/slow/{number}", slow)
    app.add_subapp("/mounted", inner)
    return app
