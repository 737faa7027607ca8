"""Directories that must be ours: every directory on the way counts, and entries are checked where they are opened."""

import os
import resource
import signal
import stat
from pathlib import Path

import pytest

from usdtkit.privatedirs import UntrustedError, open_directory, open_file, write_file

STRANGER = 12345
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def place(tmp_path):
    """A directory that passes, four below one that can be given away."""
    found = tmp_path / "one/two/three/four"
    found.mkdir(parents=True)
    return found


def descriptors():
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture(autouse=True)
def none_stays_open():
    before = descriptors()
    yield
    assert descriptors() == before


def refusal(path, **options):
    with pytest.raises(UntrustedError) as caught:
        open_directory(str(path), **options)
    return caught.value.message


def test_a_directory_of_ours(place):
    with open_directory(str(place)) as found:
        assert found.path == str(place) and not found.made
        found.write("file", b"content", 0o640)
        assert stat.S_IMODE((place / "file").stat().st_mode) == 0o640
        descriptor, status = found.open("file")
        assert (os.read(descriptor, 100), status.st_size) == (b"content", 7)
        os.close(descriptor)
        assert [name for name, _ in found.entries()] == ["file"]
        assert found.remove("file") and not found.remove("file")
    assert list(place.iterdir()) == []


def test_what_is_missing_is_made_closed_to_others(tmp_path):
    before = os.umask(0)
    try:
        with open_directory(str(tmp_path / "a/b/c"), private=True, make=True) as found:
            assert found.made
        with open_directory(str(tmp_path / "a/b/c"), private=True, make=True) as found:
            assert not found.made
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o700]


def test_what_is_missing_and_is_not_to_be_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_directory(str(tmp_path / "a/b"))
    with pytest.raises(PermissionError):
        open_directory("/proc/self/a/b")
    assert list(tmp_path.iterdir()) == []


@AS_ROOT
@pytest.mark.parametrize("above", range(4))
def test_a_directory_inside_a_strangers(place, above):
    stranger = [place, *place.parents][above]
    os.chown(stranger, STRANGER, STRANGER)
    assert refusal(place) == f"{stranger} belongs to another user (uid {STRANGER})"
    assert f"{stranger} belongs" in refusal(place / "new/below", make=True, private=True)
    with open_directory(str(place), trusted=[STRANGER]) as found:
        assert found.path == str(place)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
@pytest.mark.parametrize("above", range(4))
def test_a_directory_in_which_others_can_rename(place, above, mode):
    writable = [place, *place.parents][above]
    writable.chmod(mode)
    assert refusal(place) == f"{writable} can be written by other users"
    writable.chmod(mode | stat.S_ISVTX)
    open_directory(str(place)).close()


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o755, 0o1777])
def test_a_private_directory_is_closed_to_others(place, mode):
    place.chmod(mode)
    assert str(place) in refusal(place, private=True)
    place.chmod(0o700)
    open_directory(str(place), private=True).close()


@AS_ROOT
def test_a_private_directory_is_our_own(place):
    place.chmod(0o700)
    os.chown(place, STRANGER, STRANGER)
    assert f"uid {STRANGER}" in refusal(place, private=True, trusted=[STRANGER])


@pytest.mark.parametrize("target", ["{place}", "two/three/four", "../one/./two/../two/three/four"])
def test_a_symbolic_link_of_ours_leads_where_it_leads(place, tmp_path, target):
    (tmp_path / "one/link").symlink_to(
        target.format(place=place, last=tmp_path.name).replace(f"../{tmp_path.name}", "..")
    )
    path = tmp_path / "one/link"
    with open_directory(str(path)) as found:
        assert found.path == str(place)
    assert "is a symbolic link" in refusal(path, private=True)


@AS_ROOT
def test_a_symbolic_link_of_a_stranger_leads_nowhere(place, tmp_path):
    (tmp_path / "link").symlink_to(place.parent)
    os.lchown(tmp_path / "link", STRANGER, STRANGER)
    assert f"{tmp_path}/link belongs to another user" in refusal(tmp_path / "link/four")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"):
        open_directory(str(tmp_path / "one"))


def test_a_path_from_where_we_are(place, monkeypatch):
    monkeypatch.chdir(place.parent)
    for path in ("four", "./four", "../three/four"):
        with open_directory(path) as found:
            assert found.path == str(place)


def test_a_file_on_the_way(place):
    (place / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        open_directory(str(place / "file/below"), make=True)


@AS_ROOT
def test_entries_that_are_not_read(place):
    (place / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "fifo")
    (place / "directory").mkdir()
    for name, mode, owner in (("written", 0o620, 0), ("writable", 0o602, 0), ("theirs", 0o600, STRANGER)):
        (place / name).write_bytes(b"")
        (place / name).chmod(mode)
        os.chown(place / name, owner, owner)
    with open_directory(str(place)) as found:
        for name in ("fifo", "directory", "written", "writable", "theirs"):
            with pytest.raises(UntrustedError):
                found.open(name)
        with pytest.raises(OSError, match="symbolic links"):
            found.open("link")
        assert [found.remove(name) for name in ("link", "fifo", "directory", "theirs")] == [False] * 4
    assert len(list(place.iterdir())) == 6


@AS_ROOT
def test_a_file_is_as_good_as_its_directory(place):
    (place / "file").write_bytes(b"content")
    (place / "link").symlink_to("file")
    for path in (place / "file", place / "link"):
        with open_file(str(path)) as descriptor:
            assert os.read(descriptor, 100) == b"content"
    os.chown(place.parent, STRANGER, STRANGER)
    with pytest.raises(UntrustedError), open_file(str(place / "file")):
        pass


def test_a_file_is_replaced_and_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("precious")
    write_file(str(tmp_path / "link"), b"new")
    assert [(tmp_path / name).read_bytes() for name in ("precious", "link")] == [b"precious", b"new"]
    os.mkfifo(tmp_path / "fifo")
    for other in ("fifo", "."):
        with pytest.raises(OSError, match="regular file"):
            write_file(str(tmp_path / other), b"new")
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_nothing(place):
    with open_directory(str(place)) as found, pytest.raises(OSError, match="File too large"):
        limited(lambda: found.write("large", bytes(1 << 20), 0o600))
    assert list(place.iterdir()) == []


def limited(act):
    """Do it with files of at most 4096 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        act()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
