"""The mini-languages in which probes, conditions and values are spelled on a command line: those of bcc, as a grammar.

    p:c:open(char *path, int flags) (flags & 1) "%s", path          trace
    r:c:malloc(size_t size):u64:$latency / $entry(size)#ns a byte   argdist
    u:mariadbd:mysql:query__*                                       patterns: funccount, stackcount and others

Input: the text of a user. `lexer` makes tokens with positions, `parser` the tree of `nodes`, `printer` its text again;
then `select` finds what a target names in a session, `lower` turns the tree into expressions of `usdtkit.bpf`, and
`formats` puts values into a format string. No text of the user's goes further than that. Errors are `SpecError`s.
"""
