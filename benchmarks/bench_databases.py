"""What it costs a database server to be traced: CPU time a query and queries a second, untraced, under usdtkit's tools
and under bpftrace scripts that do the same.

The loads are sysbench's point selects on MariaDB in text mode, and a small sum by pgbench on PostgreSQL in the simple
protocol, each with one client. All ways take turns; figures are the best of several rounds, because other work of the
machine only adds to them, and ratios to the untraced load of the same run. The tracer's own CPU time a query stands
beside. It fails where a tool and its server need more than the script and its server. Needs root, sysbench and
bpftrace.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import reduce
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from common import interrupt
from processes import byte_in_memory
from programs import mariadb, postgres

from usdtkit import targets

ROUNDS = int(os.environ.get("ROUNDS", "5"))
QUERIES = int(os.environ.get("QUERIES", "20000"))
BREAKPOINT = b"\xcc"
SLACK = 1.05  # what the machine's other work may cost one of two that are equal
QUIET_S = 0.005  # of CPU time in half a second
CPU_TIME = 2  # with the number of a process, the number of its clock; see clock_getcpuclockid(3)
DISPATCH = "_Z16dispatch_command*"
PHASES = ("parse", "rewrite", "plan", "execute")

# What keeps a query's start and text, and then what is done at its end with the latency `$l` and the text `$q`.
MYSQL_SCRIPT = """
uprobe:{path}:{function} /pid == {pid} && arg0 == 3/ {{ @t[tid] = nsecs; @q[tid] = str(arg2); }}
uretprobe:{path}:{function} /@t[tid]/ {{ $l = nsecs - @t[tid]; {action} delete(@t[tid]); delete(@q[tid]); }}
END {{ clear(@t); clear(@q); }}
"""
# A statement of either protocol, which may be parsed by itself, until the backend waits for the next message.
POSTGRES_SCRIPT = """
usdt:{path}:postgresql:query__start {{ @t[tid] = nsecs; @q[tid] = str(arg0); }}
usdt:{path}:postgresql:query__parse__start /!@t[tid]/ {{ @t[tid] = nsecs; @q[tid] = str(arg0); }}
uprobe:{path}:PortalRun /@t[tid]/ {{ @run[tid] = 1; }}
uprobe:{path}:ProcessClientReadInterrupt /@run[tid]/ {{
  $l = nsecs - @t[tid]; {action} delete(@t[tid]); delete(@q[tid]); delete(@run[tid]);
}}
END {{ clear(@t); clear(@q); clear(@run); }}
"""
PHASES_SCRIPT = "usdt:{path}:postgresql:statement__status /arg0/ {{ @q[pid] = str(arg0); }}\n" + "\n".join(
    f"usdt:{{path}}:postgresql:query__{phase}__start {{{{ @t{phase}[pid] = nsecs; }}}}\n"
    f"usdt:{{path}}:postgresql:query__{phase}__done /@t{phase}[pid]/ "
    f"{{{{ @{phase}[@q[pid]] = sum(nsecs - @t{phase}[pid]); delete(@t{phase}[pid]); }}}}"
    for phase in PHASES
)
# Attached last: what it prints says that the others are.
ATTACHED = """interval:ms:10 /!@attached/ {{ @attached = 1; printf("Tracing\\n"); }}"""
ACTIONS = {
    "dbslower -m 0": 'printf("%d %d %s\\n", pid, $l, @q[tid]);',
    "dbslower": 'if ($l > 1000000) {{ printf("%d %d %s\\n", pid, $l, @q[tid]); }}',
    "dbstat": "@l = hist($l);",
    "dbstat --top 10": "@n[@q[tid]] = count(); @s[@q[tid]] = sum($l); @m[@q[tid]] = max($l);",
}


class Load:
    """A server that is traced by `words` of usdtkit's tools, and by a `script` of bpftrace.

    At `offset` in the program file `path` both have a breakpoint.
    """

    def __init__(self, server, path, offset, words, script):
        self._server, self._path, self._offset = server, path, offset
        self._resting = len(self._children())
        self.words, self.script = words, script

    def is_traced(self):
        """Whether a breakpoint is where a query begins."""
        return byte_in_memory(self._server.pid, self._path, self._offset) == BREAKPOINT

    def cpu_s(self):
        """CPU time of the server, and of the processes that it has had, once those of the clients have ended."""
        wait(lambda: len(self._children()) <= self._resting, "the server's processes do not end")
        return spent(self._server.pid, children=True)

    def _children(self):
        return Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()


def spent(pid, *, children=False):
    """Seconds of CPU time of a process; with those of its children that have ended, which are known in ticks only."""
    seconds = time.clock_gettime(~pid << 3 | CPU_TIME)
    if children:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[13:15]
        seconds += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return seconds


def measure(load, send, start):
    """(queries a second, the server's microseconds of CPU a query, the tracer's) while what `start` starts traces."""
    with traced(load, start) as pid:
        before, own = load.cpu_s(), spent(pid) if pid else 0.0
        begun = time.monotonic()
        send()
        took = time.monotonic() - begun
        server, tracer = load.cpu_s() - before, (spent(pid) - own) if pid else 0.0
    return QUERIES / took, server / QUERIES * 1e6, tracer / QUERIES * 1e6


@contextlib.contextmanager
def traced(load, command):
    """The load's server, traced by a command (None: by nobody); its process."""
    wait(lambda: not load.is_traced(), "somebody else traces the server")
    if command is None:
        yield None
        return
    with tempfile.NamedTemporaryFile() as output:
        said = Path(output.name)
        tracer = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait(lambda: b"Tracing" in said.read_bytes() or tracer.poll() is not None, "the tracer does not attach")
            if tracer.poll() is not None:
                raise SystemExit(f"{command}: {said.read_text(errors='replace')}")
            settle(tracer.pid)
            yield tracer.pid
        finally:
            interrupt(tracer)


def settle(pid):
    """Wait until a tracer has nothing to do: usdtkit looks at all processes when it starts, which no query costs."""
    before, now = -1.0, spent(pid)
    while now - before > QUIET_S:
        time.sleep(0.5)
        before, now = now, spent(pid)


def wait(condition, failure):
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(failure)
        time.sleep(0.05)


def compare(name, load, send, ways):
    """Print what each way costs; whether no tool costs more than the script."""
    taken = {way: [] for way in ways}
    for turn in range(ROUNDS + 1):
        for way, command in ways.items():
            figures = measure(load, send, command)
            if turn:
                taken[way].append(figures)
    best = {}
    for way, rows in taken.items():
        rates, costs, own = zip(*rows, strict=True)
        best[way] = max(rates), min(costs), min(own)
    rate, cost, _ = best["untraced"]
    print(f"{name}: {rate:,.0f} queries a second, {cost:.1f} us of the server's CPU a query", flush=True)
    kept = True
    for way, (own_rate, own_cost, tracer) in best.items():
        if way == "untraced":
            continue
        line = f"  {way:28} CPU x {own_cost / cost:5.2f}   rate x {own_rate / rate:5.2f}   tracer {tracer:7.1f} us"
        if way.startswith("usdtkit"):
            _, other_cost, other_tracer = best[way.replace("usdtkit", "bpftrace")]
            ratio = (own_cost + tracer) / (other_cost + other_tracer)
            worse = ratio > SLACK
            kept &= not worse
            line += f"   {ratio:5.2f} of bpftrace's, both together{'  MISSED' if worse else ''}"
        print(line, flush=True)
    return kept


def ways_of(load, actions, others=None):
    """The commands by name."""
    python = [sys.executable, "-I", "-m", "usdtkit"]
    ways = {"untraced": None}
    for words, action in actions.items():
        tool, *options = words.split()
        ways[f"usdtkit {words}"] = [*python, tool, *load.words, *options]
        ways[f"bpftrace {words}"] = ["bpftrace", "-e", (load.script + ATTACHED).replace("{action}", action).format()]
    for words, script in (others or {}).items():
        ways[f"usdtkit {words}"] = [*python, *words.split(), *load.words[1:]]
        ways[f"bpftrace {words}"] = ["bpftrace", "-e", script + ATTACHED.format()]
    return ways


def of_mariadb(folder):
    """The load of sysbench."""
    program = shutil.copy(shutil.which("mariadbd"), folder)
    with mariadb.server("--skip-networking", "--basedir=/usr", program=program) as server:
        server.query("create database sbtest")
        path = str(server.binary)
        [function] = targets.find_functions(path, [DISPATCH])
        names = {"{path}": path, "{function}": function.name, "{pid}": str(server.pid)}
        script = reduce(lambda text, item: text.replace(*item), names.items(), MYSQL_SCRIPT)
        load = Load(server, path, function.file_offset, ["mysql", "-p", str(server.pid)], script)
        sysbench = ["sysbench", "oltp_point_select", f"--mysql-socket={server.socket}", "--mysql-user=root"]
        sysbench += ["--table-size=1000", "--threads=1", "--time=0", f"--events={QUERIES}", "--mysql-db=sbtest"]
        subprocess.run([*sysbench, "prepare"], check=True, capture_output=True)

        def send():
            subprocess.run([*sysbench, "--db-ps-mode=disable", "run"], check=True, capture_output=True)

        return compare("MariaDB, sysbench in text mode", load, send, ways_of(load, ACTIONS))


def of_postgres(folder):
    """The load of pgbench."""
    # The server finds its files by the way from its program to them.
    installed, own = postgres.BINARIES.parent, Path(folder, *postgres.BINARIES.parts[2:])
    own.mkdir(parents=True)
    for name in ("initdb", "pgbench", "psql", "postgres"):
        shutil.copy(postgres.BINARIES / name, own)
    (own.parent / "lib").symlink_to(installed / "lib")
    Path(folder, "share").symlink_to("/usr/share")
    postgres.BINARIES = own
    with postgres.cluster() as server:
        path = str(own / "postgres")
        [probe] = targets.find_probes("postgresql:query__start", path=path)
        script = POSTGRES_SCRIPT.replace("{path}", path)
        load = Load(server, path, probe.sites[0].file_offset, ["postgres", "-x", path], script)
        ways = ways_of(load, ACTIONS, {"pgphases": PHASES_SCRIPT.format(path=path)})

        def send():
            server.bench("select sum(n) from generate_series(1, :number) as n", QUERIES, "simple")

        return compare("PostgreSQL, pgbench in the simple protocol", load, send, ways)


def main():
    """Measure all loads."""
    if os.geteuid() or not shutil.which("sysbench") or not shutil.which("bpftrace"):
        raise SystemExit("bench_databases.py: needs root, sysbench and bpftrace")
    # Copies of the servers' programs, which nobody else on the machine traces. Other users must be able to run them.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        os.environ["USDTKIT_CACHE"] = f"{folder}/cache"
        chosen = [load for load in (of_mariadb, of_postgres) if load.__name__ in sys.argv[1:] or not sys.argv[1:]]
        kept = [load(folder) for load in chosen]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
