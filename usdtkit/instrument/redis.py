"""Commands that redis-py sends to Redis: the probes of the provider `redis`.

Input: the module `redis`, whose clients, pipelines, subscriptions and connections are measured while somebody traces,
also those of clusters and of asyncio. Output: commands and how many arguments they have, without keys and values; each
pipeline, and the commands of it; messages of subscriptions; connections. A command that a client repeats because its
connection broke counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

from usdtkit.instrument import redaction
from usdtkit.instrument.imports import when_imported
from usdtkit.instrument.measuring import Done, Operation, Place, wrap_all
from usdtkit.probes.declaration import argument
from usdtkit.probes.drops import ask
from usdtkit.probes.provider import ready_made as Provider

__all__ = ["install"]

_provider = Provider("redis")
_LATENCY = argument("u64", unit="ns")
_start = _provider.probe("command__start", doc="A command is sent.", command="str", arguments="u32")
_done = _provider.probe(
    "command__done",
    doc="A command has been answered. Those of a pipeline are answered when all of it is.",
    command="str",
    arguments="u32",
    latency_ns=_LATENCY,
    error="str",
)
_pipeline = _provider.probe(
    "pipeline",
    doc="All commands of a pipeline have been answered; those of a transaction include MULTI and EXEC.",
    commands="u32",
    transaction="bool",
    latency_ns=_LATENCY,
    error="str",
)
_message = _provider.probe(
    "message", doc="A subscription has received something; size is that of the data in bytes.", kind="str", size="u64"
)
_connect = _provider.probe(
    "connect",
    doc="A connection has been opened, or could not be.",
    host="str",
    port="u16",
    latency_ns=_LATENCY,
    error="str",
)
# The commands whose second word says what they do.
_TWO_WORDS = {
    *("ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT"),
    *("PUBSUB", "SCRIPT", "SLOWLOG", "XGROUP", "XINFO"),
}
_Command = tuple[Any, ...]


@cache
def install() -> None:
    """Publish the commands of redis-py, once the program has imported it. A second call does nothing."""
    _provider.load()
    when_imported("redis", "redis", _wrap)


def _wrap(module: ModuleType) -> list[str]:
    library: Any = module
    places: list[Place] = []
    for side in (library, library.asyncio):
        pipeline, subscription = side.client.Pipeline, side.client.PubSub
        places += [
            Place(side.client.Redis, "execute_command", Operation(_command, (_start, _done))),
            Place(side.cluster.RedisCluster, "execute_command", Operation(_command, (_start, _done))),
            Place(subscription, "execute_command", Operation(_command, (_start, _done))),
            Place(subscription, "handle_message", Operation(_received, (_message,))),
            Place(pipeline, "immediate_execute_command", Operation(_command, (_start, _done))),
            Place(pipeline, "execute", Operation(_commands, (_start, _done, _pipeline))),
            Place(pipeline, "raise_first_error", Operation(_answers, (_done,))),
            Place(side.connection.AbstractConnection, "connect", Operation(_connected, (_connect,))),
        ]
    return wrap_all(places)


def _describe(command: Sequence[Any]) -> tuple[str, int]:
    """Return the name of a command, and how many arguments it has. A program may have written both into one text."""
    name, *arguments = command
    words = (name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).split()
    words[0] = words[0].upper()
    shown = 2 if words[0] in _TWO_WORDS else 1
    arguments[:0] = words[shown:]
    return redaction.statement(" ".join(words[:shown]), arguments or None), len(arguments)


def _command(_: Any, *args: Any, **__: Any) -> Done:
    _start.lazy(lambda: _describe(args))
    return lambda _, error, latency: _done.lazy(lambda: (*_describe(args), latency, error))


# The answers of a pipeline one of whose commands has failed; the exception is that of the first of these.
_answered: dict[int, Sequence[Any]] = {}


def _answers(pipeline: Any, _: Any, answers: Sequence[Any]) -> None:
    _answered[id(pipeline)] = answers


def _commands(pipeline: Any, *_: Any, **__: Any) -> Done | None:
    staged: list[_Command] = [command for command, _ in pipeline.command_stack]
    attributes = vars(pipeline)
    in_transaction = any(map(attributes.get, ("transaction", "is_transaction", "explicit_transaction")))
    if not staged:
        return None
    sent = [("MULTI",), *staged, ("EXEC",)] if in_transaction else staged
    for command in sent:
        _start.lazy(_describing(command))

    def done(result: Any, error: str, latency: int) -> None:
        answers = _answered.pop(id(pipeline), result)
        errors = ask(lambda: [_error(answer) for answer in answers], [error] * len(staged))
        if in_transaction:
            errors = ["", *errors, ""] if answers is not None else [error] * len(sent)
        for command, of_one in zip(sent, errors, strict=False):
            _done.lazy(_describing(command, latency, of_one))
        _pipeline(len(sent), in_transaction, latency, error)

    return done


def _describing(command: _Command, *more: object) -> Callable[[], tuple[object, ...]]:
    return lambda: (*_describe(command), *more)


def _error(answer: Any) -> str:
    return type(answer).__name__ if isinstance(answer, Exception) else ""


def _received(_: Any, response: Any, *__: Any, **___: Any) -> None:
    def values() -> tuple[str, int]:
        kind, *names, data = response if isinstance(response, (list, tuple)) else (b"pong", response)
        return redaction.statement(kind, names or None), len(data) if isinstance(data, (bytes, str)) else 0

    if response is not None:
        _message.lazy(values)


def _connected(connection: Any, *_: Any, **__: Any) -> Done | None:
    if connection.is_connected:  # a pool asks this of each connection that it lends
        return None

    def values() -> tuple[str, int]:
        path = getattr(connection, "path", "")
        return (path, 0) if path else (connection.host, int(connection.port))

    return lambda _, error, latency: _connect.lazy(lambda: (*values(), latency, error))
