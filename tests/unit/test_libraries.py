import re
import subprocess

import pytest

from usdtkit.libraries import installed, is_called, library_name
from usdtkit.signatures import known_arguments, known_function


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/lib/x86_64-linux-gnu/libc.so.6", "c"),
        ("libc-2.31.so", "c"),
        ("/lib/ld-musl-x86_64.so.1", "c"),
        ("/lib/libc.musl-x86_64.so.1", "c"),
        ("libstdc++.so.6.0.30", "stdc++"),
        ("libpython3.11.so.1.0", "python3.11"),
        ("libglib-2.0.so.0", "glib"),
        ("libssl-3e69114b.so.1.1", "ssl"),
        ("libcrypto-abc123.so.1.1", "crypto"),
        ("libssl-deadbeef.so.3", "ssl"),
        ("libavahi-client.so.3", "avahi-client"),
        ("libx-facade.so.1", "x-facade"),
        ("/usr/sbin/mariadbd", "mariadbd"),
        ("c", "c"),
    ],
)
def test_short_names(path, name):
    assert library_name(path) == name


@pytest.mark.parametrize(
    ("wanted", "called", "not_called"),
    [
        (
            "c",
            ["libc.so.6", "libc-2.31.so", "ld-musl-x86_64.so.1"],
            ["libc_malloc_debug.so.0", "libcap.so.2", "ld-2.31.so"],
        ),
        ("libc.so.6", ["libc.so.6", "libc-2.31.so"], ["libcap.so.2", "libcc.so.6"]),
        ("pam", ["libpam.so.0.85.1", "libpam.so"], ["libpamc.so.0", "libpam_misc.so.0"]),
        ("libpam.so.0", ["libpam.so.0", "libpam.so.0.85.1"], ["libpam.so.1", "libpamc.so.0"]),
        ("glib-2.0", ["libglib-2.0.so.0"], ["libgio-2.0.so.0"]),
        ("mysqld", ["/usr/sbin/mysqld"], ["/usr/sbin/mysqld_safe"]),
    ],
)
def test_which_files_a_name_means(wanted, called, not_called):
    assert all(is_called(name, wanted) for name in called)
    assert not any(is_called(name, wanted) for name in not_called)


def test_the_loaders_cache_says_the_same_to_us_as_to_ldconfig():
    text = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    theirs = re.findall(r"^\s+(\S+) \(libc6,x86-64.*\) => (.*)$", text, re.M)
    assert len(theirs) > 50
    for name, path in theirs[::17]:
        assert path in installed(name)


def test_what_is_known_of_providers_and_libraries():
    assert known_arguments("mysql", "query__start")[0] == ("query", "str")
    assert known_function("/proc/1/root/lib/libc-2.31.so", "getaddrinfo") == (("node", "str"), ("service", "str"))
    assert known_function("c", "no_such") is None
    assert known_function("libz.so.1", "getaddrinfo") is None


@pytest.mark.parametrize("provider", ["", "shop", "../libc", "os.path", "__init__", "PYTHON", "a" * 10_000, "libc"])
def test_a_provider_we_know_nothing_of(provider):
    assert known_arguments(provider, "query__start") is None
