"""The application of tests in Flask, with another one mounted below /mounted."""

import time

from flask import Flask, request, send_file
from werkzeug.middleware.dispatcher import DispatcherMiddleware

inner = Flask("inner")
flask = Flask("outer")


@inner.get("/item/<int:number>")
def item(number):
    return str(number)


@flask.get("/order/<int:number>")
def order(number):
    return str(number), 404 if number % 10 == 7 else 200


@flask.post("/order/<int:number>")
def placed(number):
    request.get_data()  # a server may close the connection if nobody reads it
    return str(number), 201


@flask.get("/fails/<int:number>")
def fails(number):
    raise ValueError(number)


@flask.get("/stream/<int:number>")
def stream(number):
    return (f"{each}\n" for each in range(number))


@flask.get("/slow/<int:number>")
def slow(number):
    time.sleep(number / 1000)
    return str(number)


@flask.get("/file")
def file():
    return send_file(__file__)


app = DispatcherMiddleware(flask, {"/mounted": inner})
