"""Views that answer, fail, fire, take their time, stream, and use the database and a template."""

import time

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render

from shop.models import Order
from shop.probes import fired


def order(request, number):
    """201 for a POST, which stores the order, else 404 for numbers that end in 7, else 200."""
    if request.method == "POST":
        Order.objects.create(customer=f"customer {number}")
        return HttpResponse(str(number), status=201)
    return HttpResponse(str(number), status=404 if number % 10 == 7 else 200)


def fails(request, number):
    """Raise an exception, which Django makes a 500 of."""
    raise ValueError(number)


def fires(request, times):
    """Fire this project's probe so many times, and answer with that number."""
    for number in range(times):
        fired(number)
    return HttpResponse(str(times))


def slow(request, number):
    """Take as many milliseconds."""
    time.sleep(number / 1000)
    return HttpResponse(str(number))


def stream(request, number):
    """Answer with as many lines, one after the other."""
    return StreamingHttpResponse(f"{each}\n" for each in range(number))


def item(request, shop, number):
    """Render a template."""
    return render(request, "item.html", {"shop": shop, "number": number, "orders": Order.objects.count()})
