"""Ways to attach a loaded program to what it observes, a module for each.

    links         chooses the ways for a session, and holds what they have attached
    sites         the nouns of attaching, and what the two ways of uprobes have in common
    uprobe_multi  all sites of a file by one link (Linux 6.6)
    uprobe        a perf event for each site
    tracepoint    tracepoints of the kernel
    clock         clocks, which take samples

Input: programs of `Loaded`, sites in files, and places of the kernel (`usdtkit.model.KernelPlace`). Output:
descriptors. The kernel detaches when they are closed, also when this process is killed.

A new kind of place of the kernel needs its noun in `usdtkit.model`, a module here with a class that follows
`links.KernelAttachment`, and its case in `links.attachment_to`.
"""
