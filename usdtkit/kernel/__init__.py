"""Programs in the kernel: loading them, attaching them, and reading what they have counted and sent.

Input: bytecode from `usdtkit.bpf`, open files and offsets from `usdtkit.trace`. Output: maps, programs and links, which
exist as long as this process holds their descriptors, and records of the ring buffer.

    load        bytecode → maps and programs (dispatcher joins several programs into one)
    attach      programs → probe sites and tracepoints, a module for each way
    maps, ring  what comes back
    features    what this kernel offers, found by trying
    diagnose    which action of a user is the reason why a program is refused
    rejections  counts of calls whose values did not fit
    mounts      traced files that do not keep their mount busy
"""
