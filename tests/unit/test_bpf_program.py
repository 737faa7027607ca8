"""Expressions and hooks become C text: deterministic, without a byte of the user's, with plain errors."""

import re

import pytest

from usdtkit.bpf import expressions as ex
from usdtkit.bpf import program
from usdtkit.bpf.actions import Block, Count, Emit, Hist, Logarithmic
from usdtkit.bpf.cookie import MAX_LISTS, MAX_PROBES, function_cookie, usdt_cookie
from usdtkit.bpf.operands import pack_operand, pack_operands
from usdtkit.bpf.program import Hook
from usdtkit.errors import UsageError
from usdtkit.model import Argument, Operand

ARGUMENTS = (Argument("order_id", "u64", 0), Argument("customer", "str", 1), Argument("far", "unreadable", 2))


def hook(*blocks, index=0, kind="usdt", **changes):
    options = {"what": "shop:order", "machine": "x86_64", "arguments": ARGUMENTS, "string_size": 128}
    return Hook(index, kind=kind, blocks=list(blocks), **options | changes)


def emit(condition=None, **fields):
    return Block(condition, Emit(0, fields))


def text_of(*blocks, **changes):
    return program.build([hook(*blocks, **changes)]).text


def test_equal_questions_give_equal_text_whatever_the_constants():
    def ask(customer, least):
        return program.build(
            [hook(emit((ex.arg("customer") == customer) & (ex.arg("order_id") > least), n=ex.arg("order_id")))]
        )

    assert text_of(emit(x=ex.arg(2).contains("ada"))) == text_of(emit(x=ex.arg(2).matches("b*?*")))
    assert ask("ada", 5).text == ask("bob", 7).text
    assert ask("ada", 5).parameters != ask("bob", 7).parameters


@pytest.mark.parametrize(
    "hostile", ['"); system("id', "*/ int x; /*", "\n#include </etc/passwd>\n", "PARAMETER(9)", "${x}", "\\"]
)
def test_no_text_of_a_user_reaches_the_compiler(hostile):
    quiet = text_of(emit(ex.arg("customer").startswith("x" * len(hostile)), name=ex.arg("customer")))
    argument = (Argument(hostile, "str", 1),)
    loud = text_of(
        emit(ex.arg(hostile).startswith(hostile), **{hostile: ex.arg(hostile)}), what=hostile, arguments=argument
    )
    assert loud == quiet


def test_names_of_arguments_and_fields_do_not_matter_to_the_text():
    renamed = (Argument("id", "u64", 0), Argument("who", "str", 1))
    first = text_of(emit(a=ex.arg("order_id"), b=ex.arg("customer")))
    assert first == text_of(emit(x=ex.arg("id"), y=ex.arg("who")), arguments=renamed)


def test_parameters_are_numbered_through_all_hooks():
    hooks = [hook(emit(ex.arg(1) > 97)), hook(emit(ex.arg(1) < 13), index=1)]
    built = program.build(hooks)
    assert built.parameters == (97, 13)
    assert [int(n) for n in re.findall(r"PARAMETER\((\d+)\)", built.text)] == [0, 1]


def test_what_a_pair_keeps_is_seen_at_its_end_only():
    start = hook(start={"id": ex.arg("order_id")})
    end = hook(emit(id=ex.Name("id"), latency=ex.latency), index=1, after=start, arguments=())
    assert program.build([start, end]).records[0].decode(bytes(24) + bytes(16)) == (0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(UsageError, match="no argument 'id'"):
        program.build([hook(emit(id=ex.Name("id")))])
    with pytest.raises(UsageError, match="only a pair has a latency"):
        program.build([hook(emit(latency=ex.latency))])


def test_a_key_is_what_each_side_has_of_its_own():
    start = hook(start={"id": ex.cpu}, matching="key", key=ex.Name("order_id"))
    other = (Argument("id", "u32", 0),)
    end = hook(emit(id=ex.Name("id")), index=1, after=start, arguments=other, matching="key", key=ex.Name("id"))
    built = program.build([start, end])
    assert [tracepoint.name for _, tracepoint in built.tracepoints] == ["sched_process_exit", "sched_process_exec"]
    assert ".value = (u64)(u32)(usdt_operand" in built.text.partition("hook_1(")[2]
    assert built.records[0].fields[0].kind == "u64"  # what was kept, for all but the key
    with pytest.raises(UsageError, match="only a pair has a latency"):
        program.build([start, hook(emit(), index=1, after=start, matching="key", key=ex.latency)])
    assert program.build([hook(emit())]).tracepoints == ()


def test_kept_names_come_before_arguments_before_builtins():
    shadow = (Argument("pid", "str", 0),)
    start = hook(start={"customer": ex.pid})
    end = hook(emit(customer=ex.Name("customer"), pid=ex.Name("pid")), index=1, after=start, arguments=shadow)
    assert [field.kind for field in program.build([start, end]).records[0].fields] == ["u64", "str"]


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        (ex.arg("nobody"), "no argument 'nobody'"),
        (ex.arg(4), "has 3 arguments, not 4"),
        (ex.arg("far"), "a probe cannot read it"),
        (ex.retval, "only a function's return"),
        (ex.arg("customer") + 1, "an integer is needed here"),
        (ex.arg("order_id") == "ada", "only a string"),
        (ex.arg("customer") == "x" * 129, "too long"),
    ],
)
def test_what_cannot_be_asked(expression, complaint):
    with pytest.raises(UsageError, match=complaint) as raised:
        text_of(emit(x=expression))
    assert "shop:order" in str(raised.value) or "too long" in complaint


def test_a_return_has_no_arguments():
    with pytest.raises(UsageError, match="cannot be read when it returns") as raised:
        text_of(emit(x=ex.arg(1)), kind="return")
    assert "keep" in raised.value.hint


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_functions_have_twelve_arguments_by_number(machine):
    fields = {f"a{n}": ex.arg(n) for n in range(1, 13)}
    text = text_of(emit(**fields), kind="entry", machine=machine, arguments=())
    assert len(set(re.findall(r"ctx->(?!sp)[a-z0-9\[\]]+", text))) == (6 if machine == "x86_64" else 8)
    with pytest.raises(UsageError, match="not 13"):
        text_of(emit(a=ex.arg(13)), kind="entry", machine=machine, arguments=())


def test_records_and_keys_have_a_limit():
    with pytest.raises(UsageError, match="an event of"):
        text_of(emit(**{f"t{n}": ex.cstr(1, 4096) for n in range(17)}))
    with pytest.raises(UsageError, match="keys of"):
        text_of(Block(None, Count(0, {"text": ex.cstr(1, 255)})))
    with pytest.raises(UsageError, match="keys of"):
        text_of(Block(None, Hist(0, ex.arg(1), {"text": ex.cstr(1, 245)}, Logarithmic())))


def test_cookies_hold_a_probe_and_its_list_of_operands():
    assert usdt_cookie(0, 0) == 0
    assert usdt_cookie(MAX_PROBES - 1, MAX_LISTS - 1, at_entry=True) == 2**31 - 1
    assert function_cookie(MAX_PROBES - 1, MAX_LISTS, is_exit=True) >> 31 == 1
    for probe, operands in ((MAX_PROBES, 0), (0, MAX_LISTS)):
        with pytest.raises(UsageError, match="in one session"):
            usdt_cookie(probe, operands)
    with pytest.raises(UsageError, match="in one session"):
        function_cookie(MAX_PROBES)


def test_operands_are_packed_where_the_kernel_keeps_the_registers():
    memory = Operand("-4@8(%rax,%rdx,2)", "memory", 4, True, 8, "rax", "rdx", 2)
    assert pack_operand(memory, "x86_64").hex() == "08000000000000005000600002010401"
    constant = Operand("8@$18446744073709551615", "constant", 8, value=2**64 - 1)
    assert pack_operand(constant, "x86_64").hex() == "ffffffffffffffffffffffff01000800"
    assert pack_operand(Operand("8@x30", "register", base="x30"), "aarch64")[8:10] == (240).to_bytes(2, "little")
    assert len(pack_operands([], "x86_64")) == len(pack_operands([constant] * 13, "x86_64")) == 12
    assert {len(entry) for entry in pack_operands([memory], "x86_64")} == {16}


def test_an_expression_is_not_a_truth_value():
    with pytest.raises(UsageError, match="truth value"):
        bool(ex.arg(1) > 1 and ex.arg(2) > 1)
    with pytest.raises(UsageError, match="truth value"):
        bool(1 < ex.arg(1) < 3)


@pytest.mark.parametrize("wrong", [1.5, None, [], 2**64, -(2**63) - 1])
def test_what_cannot_stand_in_an_expression(wrong):
    with pytest.raises(UsageError, match="cannot be used in an expression"):
        ex.arg(1) + wrong
    with pytest.raises(UsageError, match="cannot be used in an expression"):
        _ = ex.arg(1) == wrong


def test_wrong_numbers_sizes_and_types():
    for make in (
        lambda: ex.arg(0),
        lambda: ex.arg(-1),
        lambda: ex.cstr(1, 0),
        lambda: ex.cstr(1, 4097),
        lambda: ex.buffer(1, 8, 0),
        lambda: ex.deref(1, 0, "u128"),
        lambda: ex.arg(1).cast("int"),
        lambda: ex.arg(1) == "x" * 256,
        lambda: ex.arg(1) == "\ud800",
        lambda: ex.arg(1).contains("x" * 64),
        lambda: ex.arg(1).endswith("x" * 64),
        lambda: ex.arg(1).matches("*" * 64),
    ):
        with pytest.raises(UsageError):
            make()


def test_times_are_nanoseconds():
    assert (ex.us(1.5), ex.ms(2)) == (1500, 2_000_000)


def test_a_clock_has_registers_and_stacks_and_no_arguments():
    text = text_of(emit(ip=ex.ip, stack=ex.ustack, name=ex.comm), kind="clock", what="clock:99", arguments=())
    assert text == text_of(emit(ip=ex.ip, stack=ex.ustack, name=ex.comm), kind="clock", what="clock:997", arguments=())
    assert "user_stack(ctx, AT_TICK, " in text
    for value in (ex.arg(1), ex.arg("order_id"), ex.retval, ex.latency, ex.caller):
        with pytest.raises(UsageError, match="clock:99"):
            text_of(emit(x=value), kind="clock", what="clock:99", arguments=())
