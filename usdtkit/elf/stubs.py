"""The second site of each probe in a provider file, which a call hits instead of the first if its values are wrong.

Only constants. `usdtkit.probes.image` writes the sites, `usdtkit.elf.notes` finds them again, and native/probe.c has
the same numbers.
"""

# By architecture: bytes from the probe's site to the second one, and the code there, a nop and a return.
REJECTED: dict[str, tuple[int, bytes]] = {
    "x86_64": (14, b"\x90\xc3"),
    "aarch64": (8, bytes.fromhex("1f2003d5 c0035fd6")),
}
