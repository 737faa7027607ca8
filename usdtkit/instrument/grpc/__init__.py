"""Calls of gRPC: grpc:client__start and client__done of those that this process makes, server__… of those it serves.

Input: grpcio, its channels and servers, with threads and with asyncio (grpc.aio), unary and streaming. Output: the
method, the target, nanoseconds and the status, but neither messages nor metadata. `calls` has the probes, `client` and
`server` wrap the library.
"""

from __future__ import annotations

from functools import cache

from usdtkit.instrument.grpc import calls, client, server
from usdtkit.instrument.imports import when_imported

__all__ = ["install"]


@cache
def install() -> None:
    """Publish the gRPC calls of this process. A second call does nothing. Servers made before are not seen with aio."""
    calls.provider.load()
    when_imported("grpc", "grpc._channel", client.wrap)
    when_imported("grpc", "grpc.aio._channel", client.wrap_aio)
    when_imported("grpc", "grpc._server", server.wrap)
    when_imported("grpc", "grpc.aio._server", server.wrap_aio)
