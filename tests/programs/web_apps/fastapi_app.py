"""The application of tests in FastAPI: routers with prefixes, middleware, background tasks, another one mounted."""

import asyncio
import time

from fastapi import APIRouter, BackgroundTasks, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

app, inner, orders = FastAPI(), FastAPI(), APIRouter(prefix="/order")


@app.middleware("http")
async def stamped(request, call_next):
    response = await call_next(request)
    response.headers["X-Shop"] = "fastapi"
    return response


@orders.get("/{number}")
def order(number: int):  # in a thread
    return Response(str(number), 404 if number % 10 == 7 else 200)


@orders.post("/{number}", status_code=201)
async def placed(number: int, request: Request):
    await request.body()  # a server may close the connection if nobody reads it
    return number


@app.get("/fails/{number}")
async def fails(number: int):
    raise ValueError(number)


@app.get("/stream/{number}")
async def stream(number: int):
    return StreamingResponse(f"{each}\n" for each in range(number))


@app.get("/slow/{number}")
async def slow(number: int):
    await asyncio.sleep(number / 1000)


@app.get("/background/{number}")
async def background(number: int, tasks: BackgroundTasks):
    tasks.add_task(time.sleep, number / 1000)


@inner.get("/item/{number}")
async def item(number: int):
    return number


app.include_router(orders)
app.mount("/mounted", inner)
