"""From what a user asks for to the bytecode of a program for the kernel, in the order of the data flow:

    expressions   what a user asks for, as objects; actions: what is done with it
    scope, names  what the names mean at one probe; access: how a program reads that from the machine
    render, texts one expression → C; values: arithmetic on C
    statements    one action → C; pairs, calls: how starts and ends find each other → C
    program       all hooks → the C text of one program, and layouts of what it will send
    compiler      C text → bytecode, in a child process around bcc (cache, bundle: kept bytecode)

    layout        a record's fields, for the program that writes it and the reader that decodes it
    operands      where a probe's arguments lie, in the form in which the program reads it
    abi, cookie   what differs by architecture; how a site is told from others
    uapi          the numbers of linux/bpf.h

It knows nothing of the kernel that runs (`usdtkit.kernel`), of sessions and of tools (`usdtkit.trace`).
"""
