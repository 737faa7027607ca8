"""The output formats, one module each: a class derived from `usdtkit.output.sink.Sink`, by the name SINK.

`usdtkit NAME --format MODULE` finds a format by the name of its module, so a new format needs nothing besides its file.
"""
