"""Objects → the JSON text of a json argument, when somebody traces. Called by native/probe.c for each such value."""

from __future__ import annotations

import json
from collections.abc import Callable

TRUNCATED = "$truncated"


def json_encoder(limit: int) -> Callable[[object], bytes]:
    """Return a function that encodes any object in at most `limit` bytes, without a NUL.

    What JSON has no form for goes as its str(). Of a longer text remains {"$truncated": its bytes, "head": its
    beginning}, which is JSON too. NaN and the infinities become strings.
    """

    def encode(value: object) -> bytes:
        text = _dumps(value)
        if len(text) <= limit:
            return text
        return _cut(text, limit)

    return encode


def _dumps(value: object) -> bytes:
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError) as error:
        if "Circular reference" in str(error):
            raise
        text = _encoder.encode(_speakable(value))
    # A NUL cannot come out raw: JSON escapes control characters. Lone surrogates are escaped, as ASCII JSON has them.
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _ascii.encode(_speakable(value)).encode()


def _speakable(value: object) -> object:
    """The value with NaN and the infinities, and keys that are no strings, as strings: JSON has no form for them."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _speakable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_speakable(each) for each in value]
    return value


def _cut(text: bytes, limit: int) -> bytes:
    start = f'{{"{TRUNCATED}":{len(text)},"head":'
    room = limit - len(start) - 3
    head = text[:room].decode(errors="ignore")
    while len(content := f"{start}{json.dumps(head, ensure_ascii=False)}}}".encode(errors="replace")) > limit:
        # Escapes made it longer; each costs five bytes at most.
        head = head[: len(head) - max(1, (len(content) - limit) // 6)]
    return content


def _fallback(value: object) -> object:
    # Bytes as text, so that a request's body can be read; anything else as what it prints as.
    return value.decode(errors="replace") if isinstance(value, (bytes, bytearray)) else str(value)


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_fallback)
_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=_fallback)
