"""Bytecode and open files → programs that run in the kernel, and what they have counted and sent.

Input: bytecode from `usdtkit.bpf`, descriptors and offsets from `usdtkit.trace`. Output: loaded maps and programs, the
links that attach them, records of the ring buffer. `features` tells what this kernel offers, by trying it.
"""
