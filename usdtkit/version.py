"""The version of usdtkit: for the package and for the provider files it makes. pyproject.toml says the same."""

VERSION = "0.1.0"
"""The version of usdtkit, such as "1.2.0"."""
