"""ELF bytes → `usdtkit.model`: probes from notes, functions from symbols. Pure: any architecture's file, no privilege.

`image` opens a file and places addresses in it, `notes` reads its USDT probes, `symbols` its functions, `arguments` the
operands of a probe site. Everything in a file is taken as hostile: bad bytes raise `usdtkit.errors.ElfError`.
"""
