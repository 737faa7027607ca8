import os
import shutil

from usdtkit.elf.walk import elf_files


def test_every_elf_file_below_once(tmp_path, compile_c):
    program = compile_c("int main(void) { return 0; }")
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("program", "a/library.so", "a/b/no-ending", "picture.png"):
        shutil.copy(program, tmp_path / name)
    os.link(tmp_path / "program", tmp_path / "a/again")
    (tmp_path / "link").symlink_to(program)
    (tmp_path / "a/round").symlink_to(tmp_path)
    (tmp_path / "text").write_text("no ELF file" * 10)
    os.mkfifo(tmp_path / "pipe")
    found = [path.removeprefix(f"{tmp_path}/") for path in elf_files(str(tmp_path))]
    assert found == ["program", "a/library.so", "a/b/no-ending"]


def test_what_may_not_be_read_is_passed_over(tmp_path, compile_c):
    shutil.copy(compile_c("int main(void) { return 0; }"), tmp_path / "program")
    (tmp_path / "closed").mkdir(mode=0)
    assert list(elf_files(str(tmp_path))) == [str(tmp_path / "program")]
    assert list(elf_files(str(tmp_path / "none"))) == []


def test_progress_counts_files(tmp_path):
    for number in range(997):
        (tmp_path / str(number)).write_bytes(bytes(100))
    counts = []
    assert list(elf_files(str(tmp_path), progress=counts.append)) == []
    assert counts == [256, 512, 768]


def test_pseudo_file_systems_are_left_out():
    assert list(elf_files("/proc")) == []
