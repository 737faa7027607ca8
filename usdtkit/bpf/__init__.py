"""From expressions to a running BPF program, in the order of the data flow:

    expressions  what a user asks for, as objects
    program      expressions → C text, and the layout of what it will send
    compiler     C text → bytecode (a child process around bcc; cache)
    loader       bytecode → maps and programs in the kernel
    links        programs → probe sites
    maps, ringbuf  reading what comes back

Knows nothing of sessions and tools (`trace`), nor of an application's own probes (`probes`).
"""
