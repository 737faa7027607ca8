"""A bundle of compiled programs: what was put in comes out, and what is anything else is one clear error."""

import json
import os
import random
import zipfile

import pytest

from usdtkit import cache
from usdtkit.bpf import bundle, compiler
from usdtkit.errors import NotFoundError, PrivilegeError, UnsupportedError, UsdtkitError

KEY, OTHER = "a" * 64, "b" * 64
MANIFEST = {
    "schema": bundle.SCHEMA, "version": bundle.VERSION, "machine": os.uname().machine, "used_by": {KEY: ["tool"]},
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    return tmp_path / "programs.bundle"


def whole(machine=None):
    return bundle.Bundle(machine or os.uname().machine, {KEY: b"one", OTHER: b"two"}, {KEY: ["tool"], OTHER: ["a -b"]})


def archive(file, contents):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in contents.items():
            made.writestr(name, content if isinstance(content, bytes | str) else json.dumps(content))
    return file


def test_what_was_written_is_read(file):
    bundle.write(file, whole())
    assert bundle.read(file) == whole()
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_equal_programs_make_equal_files(file, tmp_path):
    bundle.write(file, whole())
    bundle.write(tmp_path / "again", whole())
    assert file.read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize(
    "contents",
    [
        {},
        {"manifest.json": b"{"},
        {"manifest.json": b"[" * 100_000},
        {"manifest.json": []},
        {"manifest.json": MANIFEST},  # without the entry
        {"manifest.json": MANIFEST | {"schema": "another"}, KEY: b""},
        {"manifest.json": MANIFEST | {"used_by": {"../../etc/passwd": []}}, "../../etc/passwd": b""},
        {"manifest.json": MANIFEST | {"used_by": {KEY: 1}}, KEY: b""},
        {"manifest.json": MANIFEST, KEY: bytes(bundle.LARGEST_ENTRY + 1)},
        {"manifest.json": MANIFEST, **{str(n): b"" for n in range(bundle.MOST_ENTRIES)}},
    ],
    ids=range(10),
)
def test_an_archive_of_something_else(file, contents):
    with pytest.raises(UsdtkitError, match="not a bundle of programs, or is damaged"):
        bundle.read(archive(file, contents))


def test_damage_of_any_kind(file):
    bundle.write(file, whole())
    content = file.read_bytes()
    chance = random.Random(997)
    for _ in range(997):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 5)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        file.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
        try:
            assert bundle.read(file).entries.keys() <= {KEY, OTHER}
        except UsdtkitError as error:
            assert str(file) in error.message


@pytest.mark.parametrize("change", [{"machine": "vax"}, {"version": "0.0.0"}])
def test_one_that_was_made_for_others(file, change):
    with pytest.raises(UnsupportedError, match=f"{next(iter(change.values()))}"):
        bundle.read(archive(file, {"manifest.json": MANIFEST | change, KEY: b""}))


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_one_that_others_could_have_written(file, mode):
    bundle.write(file, whole())
    file.chmod(mode)
    with pytest.raises(PrivilegeError):
        bundle.read(file)


def test_one_of_somebody_else(file, monkeypatch):
    if os.geteuid() == 0:
        bundle.write(file, whole())
        os.chown(file, 12345, 12345)
    else:
        bundle.write(file, whole())
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PrivilegeError):
        bundle.read(file)
    monkeypatch.setenv("SUDO_UID", str(file.stat().st_uid))
    assert bundle.read(file) == whole()


def test_places_where_no_bundle_is(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(NotFoundError):
        bundle.read(tmp_path / "missing")
    for place in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(UsdtkitError, match=str(place)):
            bundle.read(place)


@pytest.fixture
def shipped(file, tmp_path, monkeypatch):
    """A compiler's answer that came with the installation, and the texts that the compiler is asked for."""
    asked = []
    answer = json.dumps({"bcc": "0", "maps": [], "programs": {"one": ""}}).encode()
    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle, "SHIPPED", file)
    monkeypatch.setattr(compiler, "_run_child", lambda text: asked.append(text) or answer)
    bundle.write(file, bundle.Bundle(os.uname().machine, {compiler._key("one"): answer}, {compiler._key("one"): []}))
    return asked


def test_what_was_shipped_is_not_compiled(shipped, file):
    assert compiler.compile_program("one").programs == {"one": b""}
    file.unlink()
    compiler.compile_program("one")  # is in the cache now
    assert shipped == []
    compiler.compile_program("two")
    assert shipped == ["two"]


@pytest.mark.parametrize("content", [b"", b"PK", bytes(997)])
def test_damage_of_what_was_shipped_costs_a_compilation(shipped, file, content):
    file.write_bytes(content)
    assert compiler.compile_program("one").programs == {"one": b""}
    assert shipped == ["one"]


def test_what_is_no_program_is_not_kept(tmp_path, file, monkeypatch):
    from usdtkit.cli.cache import add

    monkeypatch.setenv("USDTKIT_CACHE", str(tmp_path / "cache"))
    bundle.write(file, whole())
    with pytest.raises(UsdtkitError, match="other than a program"):
        add(file)
    assert cache.entries() == []
