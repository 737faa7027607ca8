"""What processes map, as it happens, and what they have mapped."""

import mmap
import os
import subprocess
import tempfile

from usdtkit.mappings import PAGE, RING_PAGES, MappingStream, identities
from usdtkit.maps import mapping_at, mappings_in, maps_of


def test_files_as_maps_shows_them(tmp_path):
    path = tmp_path / "with 08:01 997 in its name"
    path.write_bytes(bytes(3 * PAGE))
    with path.open("rb") as file, tempfile.TemporaryFile() as empty:
        found, nothing = identities([file.fileno(), empty.fileno()])
        assert nothing is None
        assert found.inode == os.fstat(file.fileno()).st_ino
        assert mappings_in(maps_of("self"), found) == []
        with mmap.mmap(file.fileno(), 2 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=PAGE):
            (mapping,) = mappings_in(maps_of("self"), found)
            assert mapping.end - mapping.start == 2 * PAGE
            assert (mapping.offset, mapping.permissions) == (PAGE, b"r--p")
            assert (mapping.is_executable, mapping.is_writable) == (False, False)
            assert mapping.address(PAGE) == mapping.start
            assert mapping.address(0) is mapping.address(3 * PAGE) is None
            assert mapping_at(maps_of("self"), mapping.end - 1) == mapping


def test_a_program_that_starts(compile_c):
    path = compile_c("int main(void) { return 0; }")
    stream = MappingStream()
    try:
        with path.open("rb") as file:
            (identity,) = identities([file.fileno()])
        programs = [subprocess.Popen([path]) for _ in range(7)]
        assert [program.wait() for program in programs] == [0] * 7
        assert sorted(stream.take([identity])) == sorted((program.pid, identity) for program in programs)
        assert list(stream.take([identity])) == []
    finally:
        stream.close()


def test_what_does_not_fit_is_known_to_be_lost(compile_c):
    path = compile_c("int main(void) { return 0; }")
    stream = MappingStream()
    try:
        with path.open("rb") as file:
            (identity,) = identities([file.fileno()])
            for _ in range(RING_PAGES * PAGE // 64):  # no record is smaller
                mmap.mmap(file.fileno(), PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        assert (os.getpid(), identity) in list(stream.take([identity]))
        assert stream.lost
        assert list(stream.take([identity])) == []
        assert not stream.lost
    finally:
        stream.close()
