"""NSPR, through whose files NSS reads and writes: leading arguments of its functions (prio.h)."""

_TRANSFER = (("fd", "pointer"), ("buffer", "pointer"), ("size", "i32"))
_SOCKET = (*_TRANSFER, ("flags", "i32"), ("timeout", "u32"))

FUNCTIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "nspr4": {
        "PR_Read": _TRANSFER,
        "PR_Write": _TRANSFER,
        "PR_Recv": _SOCKET,
        "PR_Send": _SOCKET,
        "PR_Close": (("fd", "pointer"),),
    },
}

# They end by a jump to the code that the descriptor chooses, so that the number of bytes can only be had from a return
# probe. That code is C, which tells of its failures by its result.
RETURNS_ONLY = frozenset(("PR_Read", "PR_Write", "PR_Recv", "PR_Send"))
