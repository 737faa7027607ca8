"""Where provider files may lie, and which of them may be mapped. Some of it needs root: strangers and mounts."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from usdtkit.errors import UnsupportedError
from usdtkit.probes import files

IMAGE = b"\x7fELF" + bytes(range(256)) * 40
NOBODY = 65534


def store(name="a.so", image=IMAGE):
    path, content = files.store(name, lambda: image, lambda content: content == image)
    assert content == image
    return Path(path)


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Two directories that do not exist yet, the only ones that are tried."""
    chosen = [tmp_path / "first" / "usdtkit", tmp_path / "second" / "usdtkit"]
    monkeypatch.setattr(files, "candidates", lambda: map(str, chosen))
    monkeypatch.setattr(files, "_checked", {})
    return chosen


@pytest.fixture
def first(directories):
    directories[0].mkdir(parents=True)
    return directories[0]


def refusal(directories):
    """Why the first directory was refused; it must be, and the second taken."""
    assert store() == directories[1] / "a.so"
    del directories[1]
    with pytest.raises(UnsupportedError) as caught:
        store()
    assert "USDTKIT_DIR" in caught.value.hint
    return str(caught.value)


def test_made_readable_for_all_whatever_the_umask(directories):
    before = os.umask(0o077)
    try:
        path = store()
    finally:
        os.umask(before)
    assert path.read_bytes() == IMAGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert [each.name for each in path.parent.iterdir()] == ["a.so"]


def test_a_file_that_is_right_is_used_again(directories):
    path = store()
    before = path.stat()
    assert store() == path
    assert path.stat() == before


def test_without_nameless_files(directories, monkeypatch):
    def refuse(path, flags, *more, **options):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *more, **options)

    real = os.open
    monkeypatch.setattr(os, "open", refuse)
    path = store()
    assert path.read_bytes() == IMAGE
    assert [each.name for each in path.parent.iterdir()] == ["a.so"]


def test_a_full_disk_leaves_nothing(directories, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UnsupportedError, match="No space left on device"):
        store()
    assert [list(directory.iterdir()) for directory in directories] == [[], []]


@pytest.mark.parametrize("content", [b"", IMAGE[:-1], IMAGE[:-1] + b"\0", IMAGE + b"\0"])
def test_our_own_damaged_file_is_replaced_in_one_step(directories, first, content):
    path = first / "a.so"
    path.write_bytes(content)
    old = path.stat().st_ino
    assert store() == path
    assert path.read_bytes() == IMAGE
    assert path.stat().st_ino != old
    assert [each.name for each in first.iterdir()] == ["a.so"]


def test_a_file_of_somebody_else_is_not_used(directories, first):
    path = first / "a.so"
    path.write_bytes(IMAGE)
    os.chown(path, NOBODY, NOBODY)
    assert f"a.so belongs to another user (uid {NOBODY})" in refusal(directories)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_not_used(directories, first, mode):
    path = first / "a.so"
    path.write_bytes(IMAGE)
    path.chmod(mode)
    assert "a.so can be written by other users" in refusal(directories)


def test_a_symbolic_link_is_not_followed(directories, first, tmp_path):
    (tmp_path / "elsewhere").write_bytes(IMAGE)
    (first / "a.so").symlink_to(tmp_path / "elsewhere")
    assert "Too many levels of symbolic links" in refusal(directories)


def test_a_fifo_does_not_hold_us_up(directories, first):
    os.mkfifo(first / "a.so")
    assert "a.so is not a regular file" in refusal(directories)


def test_a_directory_of_somebody_else(directories, first):
    os.chown(first, NOBODY, NOBODY)
    assert f"{first} belongs to another user" in refusal(directories)


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_that_others_can_write(directories, first, mode):
    first.chmod(mode)
    assert f"{first} can be written by other users" in refusal(directories)


def test_a_parent_in_which_others_can_rename(directories, first):
    first.parent.chmod(0o777)
    assert f"{first.parent} can be written by other users" in refusal(directories)


def test_a_sticky_directory_is_one_where_only_owners_rename(directories, first):
    first.chmod(0o1777)
    assert store() == first / "a.so"


def test_a_file_where_the_directory_should_be(directories, first):
    first.rmdir()
    first.write_bytes(b"")
    assert "Not a directory" in refusal(directories)


def test_mounted_noexec(directories, first):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "tmpfs", first], check=True)
    try:
        assert "mounted noexec" in refusal(directories)
    finally:
        subprocess.run(["umount", first], check=True)


def test_a_file_system_that_is_executable_by_its_flags_only(directories, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.mmap, "mmap", refuse)
    with pytest.raises(UnsupportedError, match="Permission denied"):
        store()


def test_mounted_read_only_with_the_file_in_place(directories, first):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", first], check=True)
    try:
        path = store()
        subprocess.run(["mount", "-o", "remount,ro", first], check=True)
        assert store() == path
        assert store("b.so") == directories[1] / "b.so"
    finally:
        subprocess.run(["umount", first], check=True)


def test_another_user_maps_the_file_that_root_made():
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        script = f"""
import os
from usdtkit.probes import files
files.candidates = lambda: [{place!r}]
def store(name):
    return files.store(name, lambda: b"image", lambda content: content == b"image").path
path = store("a.so")
os.setgid({NOBODY})
os.setuid({NOBODY})
print(store("a.so") == path)
store("b.so")
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "True\n"
    assert f"{place}: Permission denied" in done.stderr


def test_in_memory():
    path = files.store_in_memory("shop", IMAGE)
    descriptor = int(path.rpartition("/")[2])
    try:
        assert path == f"/proc/{os.getpid()}/fd/{descriptor}"
        assert str(Path(path).readlink()) == "/memfd:shop (deleted)"
        assert not os.get_inheritable(descriptor)
        assert Path(path).read_bytes() == IMAGE
    finally:
        os.close(descriptor)
