"""The languages in which probes, conditions and values are written on a command line. They follow bcc's.

    p:c:open(char *path, int flags) (flags & 1) "%s", path          trace
    r:c:malloc(size_t size):u64:$latency / $entry(size)#ns a byte   argdist
    u:mariadbd:mysql:query__*                                       patterns of funccount, stackcount and other tools

Input: text from a user. `lexer` splits it into tokens with positions, and `parser` builds the tree of `nodes`, which
`printer` can write as text again. Then `select` finds what a target names in a session, `lower` turns the tree into
expressions of `usdtkit.bpf`, and `formats` puts values into a format string. None of the user's text becomes part of a
program. Errors are `SpecError`s, which show the place in the text.
"""
