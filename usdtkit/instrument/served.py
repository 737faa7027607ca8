"""The probes of requests that WSGI and ASGI applications handle: request__start and request__done.

Input: the provider of `wsgi` or `asgi`. Output: the two probes, which these modules fire.
"""

from __future__ import annotations

from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import Probe, Provider


def request_probes(provider: Provider) -> tuple[Probe[...], Probe[...]]:
    """Declare and return request__start and request__done."""
    start = provider.probe("request__start", doc="A request has arrived.", method="str", path="str")
    done = provider.probe(
        "request__done",
        doc="A request has been handled; status is 0 if the application raised an exception before it set one.",
        method="str",
        path="str",
        route="str",
        status="u16",
        latency_ns=argument("u64", unit="ns"),
    )
    return start, done
