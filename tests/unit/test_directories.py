import os
from pathlib import Path

import pytest

from usdtkit.directories import application_directories, provider_directories

LAST = ["/var/cache/usdtkit", f"/var/tmp/usdtkit-{os.geteuid()}"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"HOME": "/h"}, ["/run/usdtkit", "/h/.cache/usdtkit"]),
        (
            {"HOME": "/h", "USDTKIT_DIR": "/own", "XDG_RUNTIME_DIR": "/run/user/1"},
            ["/own", "/run/usdtkit", "/run/user/1/usdtkit", "/h/.cache/usdtkit"],
        ),
        ({"HOME": "/h", "USDTKIT_DIR": "", "XDG_RUNTIME_DIR": ""}, ["/run/usdtkit", "/h/.cache/usdtkit"]),
        (
            {"HOME": "/h", "CACHE_DIRECTORY": "/var/cache/a:/var/cache/b"},
            ["/run/usdtkit", "/h/.cache/usdtkit", "/var/cache/a/usdtkit", "/var/cache/b/usdtkit"],
        ),
    ],
)
def test_in_the_order_in_which_they_are_tried(monkeypatch, environment, expected):
    for name in ("HOME", "USDTKIT_DIR", "XDG_RUNTIME_DIR", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert application_directories() == list(map(Path, expected + LAST))
    assert set(application_directories()) <= set(provider_directories())


def test_where_tracers_look_besides(monkeypatch, tmp_path):
    monkeypatch.setattr("usdtkit.directories._USERS", tmp_path / "users")
    monkeypatch.setattr("usdtkit.directories._TEMPORARY", tmp_path)
    alone = [tmp_path / f"usdtkit-{os.geteuid()}"]
    assert provider_directories()[-1:] == application_directories()[-1:] == alone
    for place in ("users/1000/usdtkit", "users/1001/other", "usdtkit-998"):
        (tmp_path / place).mkdir(parents=True)
    assert provider_directories()[-3:] == [*alone, tmp_path / "users/1000/usdtkit", tmp_path / "usdtkit-998"]
