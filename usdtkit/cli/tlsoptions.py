"""The options of the tools for TLS: which libraries to trace, and further files that have them.

Input: words of a command line. Output: arguments for `usdtkit.providers.tls`.
"""

from __future__ import annotations

import argparse
from typing import Any

from usdtkit.cli.options import ToolOptions, option
from usdtkit.providers.tls import NAMES


def extra_library(text: str) -> tuple[str, str]:
    """For argparse: the name of a library, and the path of a file that has it."""
    name, _, path = text.partition(":")
    if name not in NAMES or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:PATH, KIND one of {', '.join(NAMES)}")
    return name, path


def without(name: str, *letters: str) -> Any:
    """The option that leaves out a library."""
    return option(*letters, f"--no-{name}", default=False, help=f"do not trace {name}")


class TlsLibraries(ToolOptions):
    """The options that choose libraries of TLS."""

    no_openssl: bool = without("openssl")
    no_gnutls: bool = without("gnutls")
    no_nss: bool = without("nss")
    extra_lib: tuple[tuple[str, str], ...] = option(
        "--extra-lib",
        type=extra_library,
        action="append",
        default=(),
        metavar="KIND:PATH",
        help="trace this file as well, such as openssl:/opt/app/libssl.so.1.1 (repeatable)",
    )

    @property
    def libraries(self) -> list[str]:
        """The names of the libraries that the options leave."""
        unwanted = {"openssl": self.no_openssl, "gnutls": self.no_gnutls, "nss": self.no_nss}
        return [name for name in NAMES if not unwanted[name]]
