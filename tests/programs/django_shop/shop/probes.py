"""The project's own probes. Tests change the declaration, whereupon Django's reloader starts the server anew."""

from usdtkit import Provider

fired = Provider("djangoshop").probe("order__placed", number="u64")
