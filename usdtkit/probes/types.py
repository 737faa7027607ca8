"""Names of the types of arguments for annotations of functions. A type checker reads them as int or float.

`signature` reads the annotations. The types themselves are listed in `usdtkit.argumenttypes`.
"""

from __future__ import annotations

from typing import Annotated

u8 = Annotated[int, "u8"]
u16 = Annotated[int, "u16"]
u32 = Annotated[int, "u32"]
u64 = Annotated[int, "u64"]
i8 = Annotated[int, "i8"]
i16 = Annotated[int, "i16"]
i32 = Annotated[int, "i32"]
i64 = Annotated[int, "i64"]
f32 = Annotated[float, "f32"]
f64 = Annotated[float, "f64"]
json = Annotated[object, "json"]
