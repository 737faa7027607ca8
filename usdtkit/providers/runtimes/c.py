"""C, and every program in which no other language was found: it has functions of its libraries, and no runtime."""

from __future__ import annotations

from usdtkit.providers.runtimes.language import Language

LANGUAGE = Language(
    "c",
    programs=(),
    hint="usdtkit funccount PROGRAM:* counts the calls of a program's functions, and funclatency times them",
)
