"""The second site of a probe in a provider file, which is hit in place of the first by a call that could not be fired.

Only constants, for `usdtkit.probes.image`, which writes such files, and `notes`, which finds the sites again;
native/probe.c has the same numbers.
"""

# By architecture: bytes from the probe's site to the second one, and the code there, a nop and a return.
REJECTED: dict[str, tuple[int, bytes]] = {
    "x86_64": (14, b"\x90\xc3"),
    "aarch64": (8, bytes.fromhex("1f2003d5 c0035fd6")),
}
