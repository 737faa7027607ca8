"""The cookie of a site: 32 bits by which a program in the kernel knows what it was attached to.

Input: the number of a probe, and what is special about one of its sites. Output: the number that `kernel.attach` gives
to the kernel together with the site, and the C with which a program takes it apart.

    bit 31        the site is an exit of a function
    bits 12-30    the number of the probe
    bits 0-11     of a USDT site: AT_ENTRY_BIT, and its list of operands in the map `operands`
                  of a function's entry or exit: EXIT_…

A cookie has 32 bits because a kernel whose links carry none is given it as the constant of one instruction. Where links
carry 64 bits, the number of the site's file is above them.
"""

from __future__ import annotations

from usdtkit.errors import UsageError

COOKIE_LIST_BITS, COOKIE_PROBE_BITS = 12, 19
EXIT_BIT = 1 << 31
# A USDT site is the first instruction of its function.
AT_ENTRY_BIT = 1 << 11
# An exit is a conditional jump, whose condition is in the lowest four bits as the processor numbers it; an exit is a
# jump to code that will set the return value. The third is set for an exit that other functions run through as well,
# and for the entry of its function: only a call with the same return address has ended there.
EXIT_CONDITION, EXIT_IS_BRANCH, EXIT_LACKS_VALUE, EXIT_IS_SHARED = 15, 1 << 4, 1 << 5, 1 << 6
MAX_LISTS = AT_ENTRY_BIT
MAX_PROBES = 1 << COOKIE_PROBE_BITS

# C expressions, where `cookie` is a variable. A call and its return meet by the number of their function.
FUNCTION_NUMBER = f"(cookie & {EXIT_BIT - (1 << COOKIE_LIST_BITS)})"
PROBE_NUMBER = f"(cookie >> {COOKIE_LIST_BITS} & {(1 << COOKIE_PROBE_BITS) - 1})"


def usdt_cookie(probe: int, operand_list: int, at_entry: bool = False) -> int:
    """The cookie of a USDT site. UsageError where a session has too many probes or lists of operands."""
    if operand_list >= MAX_LISTS:
        raise _too_many()
    return function_cookie(probe, at_entry * AT_ENTRY_BIT | operand_list)


def function_cookie(probe: int, flags: int = 0, *, is_exit: bool = False) -> int:
    """The cookie of a function's entry or exit; `flags` are bits of EXIT_…. UsageError as above."""
    if probe >= MAX_PROBES:
        raise _too_many()
    return is_exit * EXIT_BIT | probe << COOKIE_LIST_BITS | flags


def _too_many() -> UsageError:
    return UsageError(
        f"more than {MAX_PROBES} probes, or {MAX_LISTS} different argument layouts, in one session",
        hint="narrow the pattern, or trace in several sessions",
    )
