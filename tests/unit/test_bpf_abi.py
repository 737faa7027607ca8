"""What differs by architecture agrees with our struct pt_regs, and an unknown architecture is a plain error."""

import subprocess

import pytest

from usdtkit.bpf.abi import ABIS, abi_of
from usdtkit.bpf.compiler import HEADERS
from usdtkit.errors import UnsupportedError

CHOICE = {"x86_64": [], "aarch64": ["-U__x86_64__", "-D__TARGET_ARCH_arm64"]}


@pytest.mark.parametrize("machine", ABIS)
def test_registers_are_members_of_struct_pt_regs(machine, tmp_path):
    abi = ABIS[machine]
    members = {"sp", abi.instruction, abi.frame_pointer, abi.return_value, abi.link_register, abi.flags}
    members |= {*abi.named_registers, *(register for calls in abi.conventions.values() for register in calls.registers)}
    members |= {calls.routine for calls in abi.conventions.values()}
    assertions = [f'_Static_assert(sizeof(regs->{member}) == 8, "{member}");' for member in members - {""}]
    offset = f"__builtin_offsetof(struct pt_regs, {abi.instruction})"
    assertions.append(f'_Static_assert({offset} == {abi.instruction_offset}, "instruction");')
    source = tmp_path / "registers.c"
    source.write_text("#include <linux/ptrace.h>\nextern struct pt_regs *regs;\n" + "\n".join(assertions))
    subprocess.run(["gcc", "-fsyntax-only", *CHOICE[machine], f"-I{HEADERS}/include", source], check=True)


def test_an_unknown_architecture_is_a_plain_error():
    with pytest.raises(UnsupportedError, match="not supported on riscv64") as caught:
        abi_of("riscv64")
    assert "x86_64 and aarch64" in caught.value.hint
