"""What programs call in the kernel and what maps they declare, in bcc's words → numbers of linux/bpf.h.

Input: names of the text. Output: numbers for `lowering`, and descriptions of maps for the bytecode.
"""

from __future__ import annotations

from usdtkit.bpf import uapi
from usdtkit.bpf.bytecode import MapDescription
from usdtkit.bpf.translator.errors import UntranslatableError
from usdtkit.bpf.translator.parser import MapDeclaration
from usdtkit.bpf.translator.types import S64, U64, VOID, Integer, Pointer, Type
from usdtkit.records import NamedTuple

PAGE = 4096


class Helper(NamedTuple):
    """A helper function: its number, and what it returns. `sized` is the argument that says how many bytes it
    writes."""

    number: int
    result: Type
    sized: int = -1


HELPERS = {
    "bpf_map_lookup_elem": Helper(uapi.MAP_LOOKUP, Pointer(VOID)),
    "bpf_ktime_get_ns": Helper(5, U64),
    "bpf_get_smp_processor_id": Helper(8, U64),
    "bpf_get_current_pid_tgid": Helper(14, U64),
    "bpf_get_current_uid_gid": Helper(15, U64),
    "bpf_get_current_comm": Helper(16, S64, 1),
    "bpf_get_stack": Helper(67, S64, 2),
    "bpf_get_current_cgroup_id": Helper(80, U64),
    "bpf_send_signal": Helper(uapi.SEND_SIGNAL, S64),
    "bpf_probe_read_user": Helper(112, S64, 1),
    "bpf_probe_read_kernel": Helper(113, S64, 1),
    "bpf_probe_read_user_str": Helper(114, S64, 1),
    "bpf_probe_read_kernel_str": Helper(115, S64, 1),
    "bpf_copy_from_user": Helper(uapi.COPY_FROM_USER, S64, 1),
    "bpf_get_func_ip": Helper(uapi.GET_FUNC_IP, U64),
    "bpf_get_attach_cookie": Helper(uapi.GET_ATTACH_COOKIE, U64),
    "bpf_get_current_task": Helper(35, U64),
    "bpf_loop": Helper(uapi.LOOP, S64),
}
FILLED = {
    "PARAMETER": uapi.PARAMETER_MAGIC,
    "CALLBACK": uapi.CALLBACK_MAGIC,
    "BY_TABLES": uapi.BY_TABLES_MAGIC,
}
"""The macros of prelude.c for what the loader fills in, and how it finds them."""
MAP_UPDATE, MAP_DELETE, RING_RESERVE, RING_SUBMIT, RING_DISCARD, RING_QUERY = 2, 3, 131, 132, 133, 134
ANY, NO_EXIST = 0, 1  # whether an update may replace an entry

CONSTANTS: dict[str, tuple[int, Integer]] = {
    "BPF_F_SKIP_FIELD_MASK": (0xFF, U64),
    "BPF_F_USER_STACK": (1 << 8, U64),
    "BPF_F_USER_BUILD_ID": (1 << 11, U64),
}
_FLAGS = {"BPF_F_NO_PREALLOC": uapi.NO_PREALLOC, "BPF_F_MMAPABLE": uapi.MMAPABLE}
_TABLES = {
    '"array"': uapi.MAP_ARRAY,
    '"hash"': uapi.MAP_HASH,
    '"lru_hash"': uapi.MAP_LRU_HASH,
    '"percpu_hash"': uapi.MAP_PERCPU_HASH,
}
_ARRAYS = {"BPF_ARRAY": uapi.MAP_ARRAY, "BPF_PERCPU_ARRAY": uapi.MAP_PERCPU_ARRAY}
_HASHES = {"BPF_HASH": uapi.MAP_HASH, "BPF_PERCPU_HASH": uapi.MAP_PERCPU_HASH}


class Map(NamedTuple):
    """A map: what it is for the kernel, and the type of its values."""

    description: MapDescription
    value: Type

    @property
    def pointer(self) -> Pointer:
        """What a look-up returns."""
        return Pointer(VOID if self.description.inner else self.value)


def map_of(name: str, declaration: MapDeclaration) -> Map:
    """A map, as bcc makes it of its declaration."""
    match declaration:
        case ("BPF_TABLE", ('"array_of_maps"', _, Type() as value, _, int(entries))):
            return Map(MapDescription(name, uapi.MAP_ARRAY_OF_MAPS, 4, 4, entries, 0, value.size), value)
        case ("BPF_RINGBUF_OUTPUT", (_, int(pages))):
            return Map(MapDescription(name, uapi.MAP_RINGBUF, 0, 0, pages * PAGE, 0), VOID)
        case (macro, (_, Type() as value, int(entries))) if macro in _ARRAYS:
            return Map(MapDescription(name, _ARRAYS[macro], 4, value.size, entries, 0), value)
        case (macro, (_, Type() as key, Type() as value, int(entries))) if macro in _HASHES:
            return Map(MapDescription(name, _HASHES[macro], key.size, value.size, entries, 0), value)
        case ("BPF_TABLE" | "BPF_F_TABLE", (str(kind), Type() as key, Type() as value, _, int(entries), *rest)) if (
            kind in _TABLES and all(flag in _FLAGS for flag in rest)
        ):
            flags = sum(_FLAGS[str(flag)] for flag in rest)
            return Map(MapDescription(name, _TABLES[kind], key.size, value.size, entries, flags), value)
    raise UntranslatableError(f"{declaration.macro}({name})")
