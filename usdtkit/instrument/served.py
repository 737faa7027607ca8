"""The probes of requests that a server answers, which WSGI and ASGI have in common: request__start and request__done.

In: the provider of `wsgi` or `asgi`. Out: the two probes, for them to fire.
"""

from __future__ import annotations

from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import Probe, Provider


def request_probes(provider: Provider) -> tuple[Probe[...], Probe[...]]:
    """(request__start, request__done) of the provider."""
    start = provider.probe("request__start", doc="A request has come.", method="str", path="str")
    done = provider.probe(
        "request__done",
        doc="It is answered; status is 0 where an exception left the application before it had one.",
        method="str",
        path="str",
        route="str",
        status="u16",
        latency_ns=argument("u64", unit="ns"),
    )
    return start, done
