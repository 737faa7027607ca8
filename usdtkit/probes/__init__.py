"""The application's side: declared probes → an ELF file → loaded into the process → fired.

`declaration` checks what is declared (`signature` reads it from a function, `types` names its types), `image` makes the
bytes of the file, `files` puts them where every tracer can read them, the compiled `usdtkit._probe` maps and fires
them, and `provider` holds these together. On top: `spans`, and `traced` for whole functions, classes and modules.
"""

from usdtkit.probes.declaration import argument
from usdtkit.probes.provider import Probe, Provider
from usdtkit.probes.types import f32, f64, i8, i16, i32, i64, json, u8, u16, u32, u64

__all__ = [
    "Probe",
    "Provider",
    "argument",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "json",
    "u8",
    "u16",
    "u32",
    "u64",
]
