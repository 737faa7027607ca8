"""What root's compiler reads: none of the headers that another user has put into root's current directory."""

import subprocess

import pytest

from usdtkit.bpf.compiler import compile_afresh

TEXT = "#include <uapi/linux/ptrace.h>\nint planted_trial(struct pt_regs *ctx) { return 0; }\n"


@pytest.fixture
def planted(tmp_path):
    """A directory with headers of the names that clang looks for, all of which end a compilation."""
    version = subprocess.run(
        ["clang", "-print-resource-dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    below = [tmp_path, tmp_path / "lib/clang" / version.rpartition("/")[2] / "include"]
    for folder in below:
        for name in ("linux/types.h", "linux/kconfig.h", "stddef.h", "stdarg.h", "stdint.h", "asm/page.h"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f'#error "planted {name}"\n')
    return tmp_path


def test_headers_in_the_current_directory(planted, monkeypatch):
    monkeypatch.chdir(planted)
    assert list(compile_afresh(TEXT).programs) == ["planted_trial"]


@pytest.mark.parametrize("variable", ["CPATH", "C_INCLUDE_PATH", "BCC_KERNEL_SOURCE", "COMPILER_PATH", "PYTHONPATH"])
def test_headers_that_the_environment_names(planted, monkeypatch, variable):
    monkeypatch.setenv(variable, str(planted))
    monkeypatch.chdir(planted)
    assert list(compile_afresh(TEXT).programs) == ["planted_trial"]
