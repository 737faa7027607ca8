"""A file that is opened once: its descriptor, who it is, and what becomes of it meanwhile."""

import os
from pathlib import Path

import pytest

from usdtkit.elf import Image, functions, read_probes
from usdtkit.errors import ElfError, NotFoundError
from usdtkit.files import OpenFile
from usdtkit.model import Function


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"997")
    return path


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_is_open(path):
    file = OpenFile.open(path)
    status = path.stat()
    assert (file.path, file.key, file.owner, file.size) == (str(path), (status.st_dev, status.st_ino), os.getuid(), 3)
    assert not os.get_inheritable(file.descriptor)
    path.unlink()
    path.write_bytes(b"another file")
    assert Path(file.attach_path).read_bytes() == b"997"


def test_the_same_inode_by_two_names_is_equal(path, tmp_path):
    (tmp_path / "link").hardlink_to(path)
    (tmp_path / "copy").write_bytes(b"997")
    file = OpenFile.open(path)
    assert file == OpenFile.open(tmp_path / "link") and hash(file) == hash(OpenFile.open(tmp_path / "link"))
    assert file != OpenFile.open(tmp_path / "copy") and file != str(path)


def test_it_is_closed_when_nobody_has_it(path):
    file = OpenFile.open(path)
    descriptor, other = file.descriptor, file
    del file
    assert is_open(descriptor)
    del other
    assert not is_open(descriptor)
    file = OpenFile.open(path)
    file.close()
    file.close()
    assert not is_open(descriptor)


def test_only_what_is_written_rewrites_it(path, tmp_path):
    file = OpenFile.open(path)
    assert not file.is_rewritten
    path.rename(tmp_path / "renamed")
    (tmp_path / "renamed").chmod(0o600)
    path.hardlink_to(tmp_path / "renamed")
    assert not file.is_rewritten
    with path.open("r+b") as written:
        written.write(b"7")
    assert file.is_rewritten


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_regular_file(make, tmp_path):
    make(tmp_path / "other")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(ElfError, match=r"other: not a regular file|Is a directory"):
        OpenFile.open(tmp_path / "other")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        OpenFile.open(tmp_path / "none")


def test_what_was_read_keeps_the_file_open(compile_c):
    program = compile_c("stepper.c", "-O2")
    with Image.open(program) as image:
        (function,), probes = functions(image, "work"), read_probes(image)
    with pytest.raises(ElfError, match="is closed"):
        image.read(0, 4)
    assert {probe.file for probe in probes} == {function.file} == {OpenFile.open(program)}
    descriptor = function.file.descriptor
    assert is_open(descriptor)
    assert "file" not in function.to_json() and "OpenFile" not in repr(function)
    assert function == Function(str(program), "work", function.address, function.size, function.file_offset)
    del function, probes
    assert not is_open(descriptor)
