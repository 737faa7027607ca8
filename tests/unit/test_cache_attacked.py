"""Root with a user's HOME, while that user exchanges directories: root loads only its own, and deletes only its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from usdtkit import cache

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root is the one who is attacked")

KEY, STRANGER, ROUNDS = "a" * 64, 12345, 200
# Exchanges two directories until it is ended; only calls of the kernel's renameat2(RENAME_EXCHANGE).
EXCHANGES = """
import ctypes, sys
one, other = sys.argv[1].encode(), sys.argv[2].encode()
rename = ctypes.CDLL(None, use_errno=True).renameat2
print("ready", flush=True)
exchanged = 0
while not (rename(-100, one, -100, other, 2) and ctypes.get_errno() not in (0, 2)):
    exchanged += 1
print(ctypes.get_errno(), flush=True)
"""


@pytest.fixture
def home(monkeypatch):
    """The home of another user, which $HOME names; root's own cache is one for this test."""
    place = Path(f"/var/tmp/home-{STRANGER}-{os.getpid()}")
    (place / ".cache/usdtkit").mkdir(parents=True)
    for each in (place, place / ".cache", place / ".cache/usdtkit"):
        os.chown(each, STRANGER, STRANGER)
    monkeypatch.delenv("USDTKIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setattr(cache, "_reported", set())
    yield place
    shutil.rmtree(place)


@pytest.fixture
def attacker(spawn, wait_for_line):
    """attacker(one, other) starts the stranger, who exchanges the two."""

    def start(one, other):
        command = [sys.executable, "-I", "-c", EXCHANGES, one, other]
        process = spawn(["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *command])
        wait_for_line(process, "ready")

    return start


@pytest.fixture
def roots_own(monkeypatch, tmp_path):
    """Root's home in the password database."""
    import pwd

    own = tmp_path / "root"
    own.mkdir(mode=0o700)
    real = pwd.getpwuid(0)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((*real[:5], str(own), real[6])))
    return own / ".cache/usdtkit/bytecode"


def planted(home, content):
    """A directory of root's, as it was left there by an older version, and the stranger's beside it."""
    old, mine = home / ".cache/usdtkit/bytecode", home / ".cache/usdtkit/mine"
    for folder, owner in ((old, 0), (mine, STRANGER)):
        folder.mkdir(mode=0o700)
        (folder / KEY).write_bytes(content)
        os.chown(folder, owner, owner)
        os.chown(folder / KEY, owner, owner)
    return old, mine


def test_root_loads_nothing_of_a_stranger(home, roots_own, attacker):
    attacker(*planted(home, b"ATTACKER"))
    assert cache.load(KEY) is None
    cache.store(KEY, b"ROOT")
    assert {cache.load(KEY) for _ in range(ROUNDS)} == {b"ROOT"}
    assert (roots_own / KEY).read_bytes() == b"ROOT"
    assert cache.directory() == str(roots_own)


def test_root_deletes_nothing_elsewhere(home, roots_own, attacker, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    names = [f"{number:064x}" for number in range(50)]
    for name in names:
        (precious / name).write_bytes(b"root's")
        (precious / name).chmod(0o600)
    (home / ".cache/usdtkit/bytecode").mkdir(mode=0o700)
    (home / ".cache/usdtkit/mine").symlink_to(precious)
    attacker(home / ".cache/usdtkit/bytecode", home / ".cache/usdtkit/mine")
    for _ in range(ROUNDS):
        cache.store(KEY, b"ROOT")
        assert cache.clear() == 1
    assert sorted(path.name for path in precious.iterdir()) == names


def test_only_what_the_cache_has_written_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "chosen"))
    none = cache.PROGRAMS._replace(limit=0)
    cache.store(KEY, b"")
    others = ["notes.txt", "0" * 63 + "g", KEY.upper(), f"{KEY}.bak", f".{KEY}", ".unwind", "..", ".bashrc"]
    for name in filter(lambda name: name != "..", others):
        (tmp_path / "chosen" / name).write_bytes(b"precious")
        (tmp_path / "chosen" / name).chmod(0o600)
    (tmp_path / "chosen" / ("b" * 64)).symlink_to(tmp_path / "chosen/notes.txt")
    (tmp_path / "chosen" / ("c" * 64)).mkdir()
    cache.store(KEY, b"more than nothing", none)  # which prunes
    cache.store(KEY, b"")
    assert cache.clear() == 1
    left = {path.name for path in (tmp_path / "chosen").iterdir()}
    assert left == {name for name in others if name != ".."} | {"b" * 64, "c" * 64}


@pytest.mark.parametrize("kind", [cache.PROGRAMS, cache.TABLES])
def test_what_a_killed_writer_has_left_is_deleted(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "chosen"))
    cache.store(KEY, b"", kind)
    left = tmp_path / "chosen" / f".{KEY}{kind.suffix}.0123456789ab"
    left.write_bytes(b"")
    left.chmod(0o600)
    assert cache.clear() == 2


def test_a_directory_that_was_chosen_and_is_not_to_be_trusted_is_told_of_once(home, caplog, monkeypatch):
    monkeypatch.setenv("USDTKIT_CACHE", str(home / ".cache/usdtkit"))
    for _ in range(3):
        cache.store(KEY, b"")
        assert cache.load(KEY) is None
    (record,) = caplog.records
    assert f"{home} belongs to another user (uid {STRANGER})" in record.getMessage()
    assert list((home / ".cache/usdtkit").iterdir()) == []


def test_the_command_of_root_with_a_users_home(home, roots_own):
    done = subprocess.run(
        [sys.executable, "-m", "usdtkit", "cache"], capture_output=True, text=True, env=os.environ | {"HOME": str(home)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(home) not in done.stdout
