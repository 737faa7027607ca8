"""What we know of other software and how to measure it, one module for each kind.

The modules take a `usdtkit.trace.Session` and typed arguments, and hand out sources of that session. They stand on
`usdtkit.trace`; the tools stand on them. Nothing here parses options, prints, or knows an output format.
"""
