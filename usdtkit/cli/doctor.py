"""Show what this machine offers for tracing, and how to install what is missing.

With the name of a provider: which processes have its probes, what is wrapped there, who traces, what has fired.
With a process alone: which frames its stacks will have, and why not others.

examples:
  usdtkit doctor
  usdtkit doctor dbapi             every process that has these probes
  usdtkit doctor dbapi -p 1234     why does this process say nothing?
  usdtkit doctor -p 1234           what will its stacks show?

The exit code is 0 if everything that tracing needs is there, 5 if something is missing, and 3 if only privileges are
missing.
"""

from __future__ import annotations

import argparse
import os
import sys

from usdtkit import cache
from usdtkit._ffi import privilege_hint
from usdtkit.bpf import bundle, compiler
from usdtkit.cli import doctor_process, doctor_provider, values
from usdtkit.directories import application_directories
from usdtkit.errors import PrivilegeError, UnsupportedError, UsdtkitError
from usdtkit.kernel import features
from usdtkit.output.sink import open_sink
from usdtkit.records import asdict, dataclass
from usdtkit.results.columns import Column, Schema
from usdtkit.targets import processes_of

# Without these nothing can be traced; the others only make it better.
NEEDED = ("uprobes", "bpf", "ring buffer")
TRIAL = "int usdtkit_trial(struct pt_regs *ctx) { return 0; }\n"


COLUMNS = (
    Column("name", meaning="the feature"),
    Column("state", meaning="whether the machine has it", values=("found", "missing", "unknown")),
    Column("purpose", meaning="what the feature is good for"),
    Column("detail", meaning="what was found"),
    Column("fix", meaning="what to do if the feature is not there"),
)
SCHEMAS = (Schema("doctor", COLUMNS), doctor_provider.SCHEMA, doctor_process.SCHEMA)


@dataclass(frozen=True, slots=True)
class Row:
    """One feature: `state` is found, missing or unknown; `fix` says what to do if it is not found."""

    name: str
    state: features.State
    purpose: str
    detail: str
    fix: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `usdtkit doctor`."""
    parser.add_argument("provider", nargs="?", metavar="PROVIDER", help="show its probes in each process that has them")
    parser.add_argument(
        *("-p", "--pid"),
        type=values.processes,
        action="extend",
        default=[],
        help="what the stacks of this process will show, or with a PROVIDER only this process: a PID or the name of a "
        "program (repeatable; also 12,postgres)",
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines, an object a feature")


def run(options: argparse.Namespace) -> int:
    """Test everything and print it, or show one provider."""
    pids = [pid for word in options.pid for pid in processes_of(word)]
    if options.provider is not None:
        return doctor_provider.run(options.provider, pids, json=options.json)
    if pids:
        return doctor_process.run(pids, json=options.json)
    rows = examine()
    if options.json:
        sink = open_sink("json", sys.stdout)
        sink.begin(SCHEMAS[0])
        for row in rows:
            sink.row(asdict(row))
    else:
        for row in rows:
            print(f"{row.name:<16} {row.state:<8} {row.detail or row.purpose}")
            if row.state != "found":
                print(f"{'':<25} fix: {row.fix}")
    return exit_code(rows)


def exit_code(rows: list[Row]) -> int:
    """0, or the exit code that says what is missing."""
    absent = [row for row in rows if row.name in NEEDED and row.state != "found"]
    if not absent:
        return 0
    only_privilege = all("privilege" in row.detail for row in absent)
    return PrivilegeError.exit_code if only_privilege else UnsupportedError.exit_code


def examine() -> list[Row]:
    """Every feature, tested now."""
    rows = []
    for feature in features.KERNEL:
        finding = feature.test()
        detail = finding.detail or f"{feature.purpose} (Linux {feature.since})"
        fix = privilege_hint() if "privilege" in detail else feature.fix
        rows.append(Row(feature.name, finding.state, feature.purpose, detail, fix))
    return [*rows, _compiler(), _programs(), _provider_directory()]


def _programs() -> Row:
    """Where the programs of tools come from: the cache, this installation, and the translator."""
    problem = cache.problem()
    cached, tools = 0 if problem else len(cache.entries()), len(_tools_that_came_compiled())
    counts = [f"{cached} in the cache {cache.directory()}", f"those of {tools} tools came with usdtkit"]
    there = [text for text, count in zip(counts, (cached, tools), strict=True) if count]
    detail = ", ".join(
        [
            *there,
            f"{'others' if there else 'they'} are translated when they are needed",
            *([problem] if problem else []),
        ]
    )
    return Row("programs", "found", "the programs of the tools", detail, "")


def _tools_that_came_compiled() -> set[str]:
    try:
        used_by = bundle.read(bundle.SHIPPED).used_by if bundle.SHIPPED.exists() else {}
    except UsdtkitError:  # damaged, or in a directory of others: it is as good as the rest of the installation
        return set()
    return {line.partition(" ")[0] for lines in used_by.values() for line in lines}


def _compiler() -> Row:
    def row(state: features.State, detail: str, fix: str = compiler.BCC_HINT) -> Row:
        return Row("compiler", state, "programs with C of your own", detail, fix)

    try:
        bytecode = compiler.compile_afresh(TRIAL)
    except UnsupportedError as error:
        return row("missing", f"only programs with C of your own need it; {error.message}", error.hint or "")
    except UsdtkitError as error:
        lacks_privilege = features.lacks_privilege()
        return row("unknown", "not enough privilege to try") if lacks_privilege else row("missing", error.message)
    return row("found", f"bcc {bytecode.bcc_version}, without kernel headers")


def _provider_directory() -> Row:
    """The first directory that this user's services can put their probes into. It is not created."""
    purpose = "probes of Python applications"
    for place in application_directories():
        existing = next(parent for parent in (place, *place.parents) if os.path.isdir(parent))  # noqa: PTH112 never raises
        if os.access(existing, os.W_OK | os.X_OK) and not os.statvfs(existing).f_flag & os.ST_NOEXEC:
            return Row("providers", "found", purpose, f"{purpose}, in {place}", "")
    fix = "set USDTKIT_DIR to a directory of your own, on a file system that is not mounted noexec"
    return Row("providers", "missing", purpose, "no directory can hold them, so they would exist in memory only", fix)
