"""Rows and blocks of `usdtkit.results` → what a person or a program reads: one file a format, in `formats`.

`sink` is the protocol that a format follows, and finds a format by its name. `text` makes hostile strings printable,
`frames` labels the frames of stacks, `histogram` draws distributions. Nothing here knows where a row came from.
"""
