"""Programs that we did not write read the provider file and receive what fires: readelf, gdb, perf, bcc, bpftrace."""

import contextlib
import os
import re
import struct
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.machine]

SHOP = """
import sys
from usdtkit import Provider
shop = Provider("shop")
start = shop.probe("order__start", order_id="u64", customer="str")
done = shop.probe("order__done", order_id="u64", status="i32")
"""

# Says where its probes are, then does what each line of its input says.
SERVICE = """
shop.load()
print(shop.files[0], flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

EVERY_TYPE = ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "bool", "f64", "f32")


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"USDTKIT_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def service(spawn, environment):
    """service(declarations) -> (process, path, run), where run(line) has the process do something and awaits it."""

    def start(declarations=SHOP):
        process = spawn([sys.executable, "-c", declarations + SERVICE], env=environment)
        path = process.stdout.readline().strip()
        assert path.endswith(".so") or "/fd/" in path

        def run(line):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        return process, path, run

    return start


@pytest.fixture
def built(environment):
    """Path of the file of SHOP, made by a process that loads nothing."""
    return output(sys.executable, "-c", f"{SHOP}print(shop.build())", env=environment).strip()


@pytest.fixture
def fast(monkeypatch):
    """From here on all is done with five-byte sites."""
    monkeypatch.setitem(globals(), "SHOP", SHOP.replace('Provider("shop")', 'Provider("shop", nop="fast")'))


@pytest.fixture
def bpftrace(spawn, wait_for_line):
    """bpftrace(program, *options) -> finish(printed=0), called when all has fired: the lines that it wrote.

    `printed` lines of printf are awaited, each with "got" in it: old bpftrace drops those under way at its end.
    """

    def start(program, *options):
        tracer = spawn(
            ["bpftrace", *options, "-e", f'BEGIN {{ printf("ready\\n") }} {program}'], stderr=subprocess.STDOUT
        )
        wait_for_line(tracer, "ready")

        def finish(printed=0):
            lines = [wait_for_line(tracer, "got") for _ in range(printed)]
            # Old bpftrace misses a signal that comes while it is not waiting for events.
            for patience in (5, 5, 20):
                tracer.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return lines + [line for line in tracer.communicate(timeout=patience)[0].splitlines() if line]
            pytest.fail("bpftrace does not end")

        return finish

    return start


def counted(lines):
    """The maps that bpftrace prints at its end: {name: value}."""
    return {name: int(value) for name, value in (line.split(": ") for line in lines if re.match(r"@\w+: \d+$", line))}


def output(*command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readelf_lists_the_probes(built):
    text = output("readelf", "-nW", built)
    assert re.findall(
        r"Provider: (\S+)\s+Name: (\S+)\s+Location: (\S+), .* Semaphore: (\S+)\s+Arguments: (.*)", text
    ) == [
        ("shop", "order__start", "0x0000000000001000", "0x0000000000000000", "8@%rdi 8@%rsi"),
        ("shop", "order__done", "0x0000000000001010", "0x0000000000000000", "8@%rdi -4@%rsi"),
    ]
    assert re.search(r"Build ID: [0-9a-f]{40}\n", text)


def test_gdb_sees_them_in_the_running_process(service):
    process, path, _ = service()
    text = output("gdb", "-nx", "-batch", "-p", str(process.pid), "-ex", "info probes stap shop")
    for name in ("order__done", "order__start"):
        assert re.search(rf"^stap\s+shop\s+{name}\s+0x[0-9a-f]+\s+{re.escape(path)}\s*$", text, re.MULTILINE)


def stop_at(environment, script, probe, *commands):
    """What gdb prints for the commands when a new process fires the probe for the first time."""
    declarations = script.partition("shop.load()")[0]
    path = output(sys.executable, "-c", f"{declarations}print(shop.build())", env=environment).strip()
    batch = ["set breakpoint pending on", f"break -probe-stap {path}:shop:{probe}", "run", *commands, "kill"]
    options = [option for command in batch for option in ("-ex", command)]
    return output("gdb", "-nx", "-batch", *options, "--args", sys.executable, "-c", script, env=environment)


def test_gdb_stops_at_a_probe_and_reads_its_arguments(environment):
    shown = stop_at(
        environment,
        f"{SHOP}shop.load(); start(997, 'ada')",
        "order__start",
        "p $_probe_argc",
        "p $_probe_arg0",
        "x/s $_probe_arg1",
    )
    assert "$1 = 2\n$2 = 997\n" in shown
    assert '"ada"' in shown


def test_tplist_by_path_and_by_pid(service):
    process, path, _ = service()
    for where in (("-l", path), ("-p", str(process.pid))):
        lines = output("tplist-bpfcc", "-v", *where, "shop:*").splitlines()
        assert [line.split()[0] for line in lines if line.startswith(("shop:", f"{path} shop:", "b'shop"))], lines


def test_perf_reads_the_file(built, tmp_path):
    cache = ("--buildid-dir", str(tmp_path / "cache"))
    output("perf", *cache, "buildid-cache", "--add", built)
    listed = output("perf", *cache, "list", "sdt")
    assert "sdt_shop:order__start" in listed
    assert "sdt_shop:order__done" in listed


COUNT = """
usdt:{path}:shop:order__start {{
    @fired = count(); @sum = sum(arg0);
    if (str(arg1) == "ada lovelace") {{ @named = count(); }}
}}"""
FIRE = "for number in range(997): start(number, 'ada lovelace')"
EXPECTED = {"@fired": 997, "@named": 997, "@sum": sum(range(997))}


def test_bpftrace_by_path_before_the_process_starts(built, bpftrace, service):
    finish = bpftrace(COUNT.format(path=built))
    _, _, run = service()
    run("assert start.enabled and not done.enabled")
    run(FIRE)
    assert counted(finish()) == EXPECTED


def test_bpftrace_by_pid(bpftrace, service):
    process, _, run = service()
    run("assert not start.enabled")
    finish = bpftrace(COUNT.format(path=""), "-p", str(process.pid))
    run("assert start.enabled")
    run(FIRE)
    assert counted(finish()) == EXPECTED
    run("assert not start.enabled")


def test_two_processes_that_share_one_file_attached_once(built, bpftrace, service):
    finish = bpftrace(COUNT.format(path=built))
    _, path, run = service()
    _, same, run_other = service()
    assert path == same == built
    run(FIRE)
    run_other(FIRE)
    assert counted(finish()) == {name: 2 * value for name, value in EXPECTED.items()}


def test_a_forked_child_fires_too(bpftrace, service):
    _, path, run = service()
    finish = bpftrace(COUNT.format(path=path))
    run("start(0, ''); import os; child = os.fork(); " + "child or ([start(1, '') for _ in range(997)], os._exit(0))")
    run("assert os.waitpid(child, 0)[1] == 0")
    assert counted(finish())["@sum"] == 997


def test_ten_threads(bpftrace, service):
    _, path, run = service()
    finish = bpftrace(COUNT.format(path=path))
    run("import threading; fire = lambda: [start(number, 'ada lovelace') for number in range(997)]")
    run("threads = [threading.Thread(target=fire) for _ in range(10)]")
    run("[thread.start() for thread in threads]; [thread.join() for thread in threads]")
    assert counted(finish()) == {name: 10 * value for name, value in EXPECTED.items()}


def test_each_reads_five_byte_sites(fast, environment, spawn, bpftrace, tmp_path):
    path = output(sys.executable, "-c", f"{SHOP}print(shop.build())", env=environment).strip()
    assert "order__start" in output("readelf", "-nW", path)
    assert f"{path} shop:order__start" in output("tplist-bpfcc", "-l", path, "shop:*").replace("b'", "").replace(
        "'", ""
    )
    cache = ("--buildid-dir", str(tmp_path / "cache"))
    output("perf", *cache, "buildid-cache", "--add", path)
    assert "sdt_shop:order__start" in output("perf", *cache, "list", "sdt")
    shown = stop_at(environment, f"{SHOP}shop.load(); start(997, 'ada')", "order__start", "p $_probe_arg0")
    assert "$1 = 997\n" in shown
    finish = bpftrace(COUNT.format(path=path))
    output(sys.executable, "-c", f"{SHOP}{FIRE}", env=environment)
    assert counted(finish()) == EXPECTED


def declare(name, kinds):
    arguments = ", ".join(f"a{number}={kind!r}" for number, kind in enumerate(kinds))
    return f"{SHOP}{name} = shop.probe({name!r}, {arguments})\n"


def test_every_type_arrives_in_bpftrace(bpftrace, service):
    # In two probes: old bpftrace reads six arguments.
    narrow = declare("narrow", ["u8", "u16", "u32", "i8", "i16", "i32"])
    wide = declare("wide", ["u64", "i64", "bool", "f64", "bytes"]).removeprefix(SHOP)
    more = "from usdtkit import argument\nnames = argument('enum', names={'new': 7, 'paid': -1})\n"
    more += "more = shop.probe('more', ratio='f32', state=names, basket='json')\n"
    _, path, run = service(narrow + wide + more)
    finish = bpftrace(
        f'usdt:{path}:shop:narrow {{ printf("got %d %d %lu %d %d %d\\n", arg0, arg1, arg2, arg3, arg4, arg5) }}'
        f'usdt:{path}:shop:wide {{ printf("got %lu %ld %d %lx %s|\\n", arg0, arg1, arg2, arg3, str(arg4, arg5)) }}'
        f'usdt:{path}:shop:more {{ printf("got %x %d %s\\n", arg0, arg1, str(arg2)) }}'
    )
    run("more(-0.25, 'paid', {'a': ['ö']}); more(0.5, 7, None)")
    run("narrow(255, 65535, 2**32 - 1, -128, -32768, -2**31)")
    run("wide(2**64 - 1, -2**63, True, 0.1, bytearray(b'body and more'))")
    run("wide(4, -1, False, -2.0, memoryview(b'body and more')[:4])")
    # What was fired on two processors may arrive in another order.
    expected = [
        f"got 255 65535 {2**32 - 1} -128 -32768 {-(2**31)}",
        f"got {2**64 - 1} {-(2**63)} 1 {struct.pack('>d', 0.1).hex()} body and more|",
        f"got 4 -1 0 {struct.pack('>d', -2.0).hex()} body|",
        'got be800000 -1 {"a":["ö"]}',
        "got 3f000000 7 null",
    ]
    assert sorted(finish(printed=5)) == sorted(expected)


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (EVERY_TYPE, [255, 65535, 2**32 - 1, 2**64 - 1, -128, -32768, -(2**31), -(2**63), 1, 0.5, -0.25]),
        (EVERY_TYPE[::-1], [-0.25, 0.5, 1, -(2**63), -(2**31), -32768, -128, 2**64 - 1, 2**32 - 1, 65535, 255]),
        (["i32"] * 12, list(range(-6, 6))),
    ],
    ids=["every", "yreve", "twelve"],
)
def test_arguments_in_registers_and_on_the_stack_in_gdb(environment, kinds, values):
    given = ", ".join("True" if kind == "bool" else str(value) for kind, value in zip(kinds, values, strict=True))
    script = f"{declare('many', kinds)}shop.load(); many({given})"
    shown = stop_at(environment, script, "many", *(f"p $_probe_arg{number}" for number in range(len(kinds))))
    bits = {
        "f64": struct.unpack("<q", struct.pack("<d", 0.5))[0],
        "f32": struct.unpack("<I", struct.pack("<f", -0.25))[0],
    }
    expected = [bits.get(kind, value) for kind, value in zip(kinds, values, strict=True)]
    assert [int(value) for value in re.findall(r"^\$\d+ = (-?\d+)", shown, re.MULTILINE)] == expected


def test_twelve_arguments_arrive_in_perf(environment, tmp_path):
    script = f"""{declare("twelve", ["u64"] * 12)}
path = shop.build()
for number in range(997):
    twelve(*[number * each for each in range(1, 13)])
"""
    cache, data = ("--buildid-dir", tmp_path / "cache"), tmp_path / "perf.data"
    path = output(sys.executable, "-c", f"{script.partition('for ')[0]}print(path)", env=environment).strip()
    output("perf", *cache, "buildid-cache", "--add", path)
    output("perf", *cache, "probe", "-q", "%sdt_shop:twelve")
    try:
        output(
            "perf",
            *cache,
            "record",
            "-q",
            "-N",
            "-e",
            "sdt_shop:twelve",
            "-o",
            data,
            sys.executable,
            "-c",
            script,
            env=environment,
        )
        fields = re.findall(r"arg(\d+)=(\d+)", output("perf", *cache, "script", "-i", data, "-F", "trace"))
    finally:
        output("perf", *cache, "probe", "-q", "-d", "sdt_shop:twelve")
    assert len(fields) == 997 * 12
    assert all(int(value) == at // 12 * int(number) for at, (number, value) in enumerate(fields))


def test_a_wrong_call_while_traced_says_which_argument(bpftrace, service):
    declarations = f"""{SHOP.replace('Provider("shop"', 'Provider("shop", on_error="raise"')}
def failure(*values):
    try:
        return str(start(*values))
    except Exception as error:
        assert "shop:order__start" in str(error)
        return type(error).__name__
"""
    _, path, run = service(declarations)
    finish = bpftrace(COUNT.format(path=path))
    for call, error in (
        ("-1, 'ada'", "OverflowError"),
        ("1", "TypeError"),
        ("1, 2", "TypeError"),
        ("1, 'ada'", "None"),
    ):
        run(f"assert failure({call}) == {error!r}")
    assert counted(finish()) == {"@fired": 1, "@named": 0, "@sum": 1}


def test_a_file_in_memory_is_found_by_pid(spawn, environment, bpftrace):
    in_memory = "from usdtkit.probes import files\n"
    in_memory += "files.candidates = lambda: ['/dev/null']\n"
    process = spawn([sys.executable, "-W", "ignore", "-c", in_memory + SHOP + SERVICE], env=environment)
    assert process.stdout.readline().startswith(f"/proc/{process.pid}/fd/")
    assert "shop:order__start" in output("tplist-bpfcc", "-p", str(process.pid))
    finish = bpftrace(COUNT.format(path=""), "-p", str(process.pid))
    process.stdin.write(f"{FIRE}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    assert counted(finish()) == EXPECTED
