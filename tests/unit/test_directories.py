from pathlib import Path

import pytest

from usdtkit.directories import application_directories


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/h"}, ["/run/usdtkit", "/h/.cache/usdtkit"]),
        (
            {"HOME": "/h", "USDTKIT_DIR": "/own", "XDG_RUNTIME_DIR": "/run/user/1"},
            ["/own", "/run/usdtkit", "/run/user/1/usdtkit", "/h/.cache/usdtkit"],
        ),
        ({"HOME": "/h", "USDTKIT_DIR": "", "XDG_RUNTIME_DIR": ""}, ["/run/usdtkit", "/h/.cache/usdtkit"]),
    ],
)
def test_in_the_order_in_which_they_are_tried(monkeypatch, environment, expected):
    for name in ("HOME", "USDTKIT_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert application_directories() == list(map(Path, expected))
