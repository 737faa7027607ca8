"""The only place that says the version of usdtkit: of the package, of its provider files and of its bundles."""

VERSION = "0.1.0"
"""The version of usdtkit, such as "1.2.0"."""
