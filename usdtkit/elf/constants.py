"""The numbers of the ELF format that we read or write, by the names that elf.h and the ABI documents give them.

Used by every module of `usdtkit.elf` that meets the format, and by `usdtkit.probes.image`, which writes it. A value is
here only where something uses it. Imports nothing.
"""

from __future__ import annotations

# Types of files.
ET_EXEC, ET_DYN = 2, 3

# Types and flags of segments.
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 1, 2, 3, 4
PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_RELRO = 0x6474E550, 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4

# Types and flags of sections.
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 4, 5, 6, 7, 8
SHT_DYNSYM = 11
SHT_GNU_HASH, SHT_GNU_VERDEF, SHT_GNU_VERSYM = 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFF
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_COMPRESSED = 1, 2, 4, 0x800

# Symbols: the section of those that are not defined, bindings (the upper half of st_info) and types (the lower half).
SHN_UNDEF = 0
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_GNU_IFUNC = 0, 1, 2, 10

# Tags of the dynamic section.
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_INIT, DT_SONAME = 0, 4, 5, 6, 10, 11, 12, 14

# Notes: the section, owner and type of a USDT probe's, and the type of GNU's with the build-id.
STAPSDT_SECTION, STAPSDT_OWNER, NT_STAPSDT = ".note.stapsdt", "stapsdt", 3
STAPSDT_BASE_SECTION = ".stapsdt.base"
GNU_OWNER, NT_GNU_BUILD_ID = "GNU", 3
