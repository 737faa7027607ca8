"""The application of tests in Starlette, with another one mounted below /mounted."""

import asyncio

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route


async def order(request):
    number = request.path_params["number"]
    return PlainTextResponse(str(number), 404 if number % 10 == 7 else 200)


async def placed(request):
    await request.body()  # a server may close the connection if nobody reads it
    return PlainTextResponse("", 201)


async def fails(request):
    raise ValueError(request.path_params["number"])


async def stream(request):
    return StreamingResponse(f"{each}\n" for each in range(request.path_params["number"]))


async def slow(request):
    await asyncio.sleep(request.path_params["number"] / 1000)
    return PlainTextResponse("")


app = Starlette(
    routes=[
        Route("/order/{number:int}", order, methods=["GET"]),
        Route("/order/{number:int}", placed, methods=["POST"]),
        Route("/fails/{number:int}", fails),
        Route("/stream/{number:int}", stream),
        Route("/slow/{number:int}", slow),
        Mount("/mounted", app=Starlette(routes=[Route("/item/{number:int}", order)])),
    ]
)
