"""Events, histograms and summaries → what a person or a program reads.

`text` makes hostile strings printable, `report` writes a tool's rows as a table, JSON Lines or CSV, `histogram` draws
distributions. Nothing here knows where an event came from.
"""
