"""Objects → the JSON text of a json argument. Called by native/probe_values.c for each such value that is traced."""

from __future__ import annotations

import json
from collections.abc import Callable

TRUNCATED = "$truncated"


def json_encoder(limit: int) -> Callable[[object], bytes]:
    """Return a function that encodes any object in at most `limit` bytes, without a NUL.

    An object that JSON cannot represent becomes its str(), and so do NaN and the infinities. A longer text becomes
    {"$truncated": its length in bytes, "head": its beginning}, which is JSON too.
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
        text = _encoder.encode(_representable(value))
    # The text has no NUL, because JSON escapes control characters. Lone surrogates are escaped in ASCII JSON.
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _ascii.encode(_representable(value)).encode()


def _representable(value: object) -> object:
    """Return the value with strings in place of NaN, the infinities, and keys that are not strings."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _representable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_representable(item) for item in value]
    return value


def _cut(text: bytes, limit: int) -> bytes:
    start = f'{{"{TRUNCATED}":{len(text)},"head":'
    available = limit - len(start) - 3
    head = text[:available].decode(errors="ignore")
    while len(content := f"{start}{json.dumps(head, ensure_ascii=False)}}}".encode(errors="replace")) > limit:
        # Escapes made it longer, each by at most five bytes.
        head = head[: len(head) - max(1, (len(content) - limit) // 6)]
    return content


def _fallback(value: object) -> object:
    # Bytes become text, so that the body of a request can be read. Any other object becomes what print() would show.
    return value.decode(errors="replace") if isinstance(value, (bytes, bytearray)) else str(value)


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_fallback)
_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=_fallback)
