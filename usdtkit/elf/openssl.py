"""OpenSSL's libssl → the functions that do the handshake, which a stripped file does not name.

Input: an open file and its `exits.ExitFinder`; used by `usdtkit.trace.returns`. SSL_do_handshake ends with a jump
through a pointer to one of two functions, one for the client's side and one for the server's. Every SSL_METHOD points
to both, and TLS_method() returns the address of an SSL_METHOD.
"""

from __future__ import annotations

from usdtkit.elf.exits import ExitFinder
from usdtkit.elf.image import Image
from usdtkit.elf.symbols import functions
from usdtkit.errors import ElfError

SHAKES_HANDS = frozenset(("SSL_do_handshake", "SSL_connect", "SSL_accept"))
_METHOD = "TLS_method"
_LEA_RIP_RAX, _MOV_EAX, _LONGEST = b"\x48\x8d\x05", b"\xb8", 32
# The members ssl_accept and ssl_connect of SSL_METHOD, in OpenSSL 1.1.0 to 3.x.
_MEMBERS = (40, 48)


def handshakes(image: Image, finder: ExitFinder) -> tuple[int, ...]:
    """Return the addresses of the two functions; () if the file does not look as expected."""
    for method in functions(image, _METHOD):
        try:
            code = image.read(method.file_offset, min(method.size, _LONGEST))
        except ElfError:
            continue
        table = _returned(code, method.address)
        pointers = tuple(finder.pointer(table + member) for member in _MEMBERS)
        if all(pointers):
            return pointers
    return ()


def _returned(code: bytes, address: int) -> int:
    """The address that a function returns if it does nothing else, in position-independent code or in other code."""
    if (at := code.find(_LEA_RIP_RAX)) >= 0:
        return address + at + 7 + int.from_bytes(code[at + 3 : at + 7], "little", signed=True)
    at = code.find(_MOV_EAX)
    return int.from_bytes(code[at + 1 : at + 5], "little") if at >= 0 else 0
