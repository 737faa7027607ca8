"""The options of the tools for TLS: which libraries, and in which further files.

Input: an argparse parser, and the options that it has parsed. Output: arguments for `usdtkit.providers.tls`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from usdtkit.providers.tlslibraries import NAMES


def add_library_options(parser: argparse.ArgumentParser, letters: Sequence[str] = ("", "", "")) -> None:
    """Add --no-openssl, --no-gnutls and --no-nss, which a tool may give letters, and --extra-lib."""
    for name, letter in zip(NAMES, letters, strict=True):
        flags = [f"-{letter}"] if letter else []
        parser.add_argument(*flags, f"--no-{name}", action="store_true", help=f"without {name}")
    parser.add_argument(
        "--extra-lib", type=extra_library, action="append", metavar="KIND:PATH", help="this file too: openssl:/path/…"
    )


def extra_library(text: str) -> tuple[str, str]:
    """For argparse: the name of a library, and the path of a file that has it."""
    name, _, path = text.partition(":")
    if name not in NAMES or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:PATH, KIND one of {', '.join(NAMES)}")
    return name, path


def chosen_libraries(options: argparse.Namespace) -> tuple[list[str], list[tuple[str, str]]]:
    """The libraries that are wanted, and the files that were named for them."""
    libraries = [name for name in NAMES if not getattr(options, f"no_{name}")]
    return libraries, [(name, path) for name, path in options.extra_lib or () if name in libraries]
