"""The plugin of pytest, which it finds by usdtkit's entry point: fixtures for the tests of an application.

Input: pytest. Output: the recordings of `usdtkit.testing`, which is imported only for tests that ask for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from usdtkit.testing import Recording


@pytest.fixture
def usdtkit_probes() -> Iterator[Recording]:
    """All calls of the application's probes during the test, in all threads: `usdtkit.testing.Recording`."""
    from usdtkit.testing import record_probes

    with record_probes() as recording:
        yield recording
