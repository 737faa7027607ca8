"""Find, build and remove the provider files of applications, and write scripts for other tracers.

examples:
  usdtkit provider path shop                     where the probes of shop are
  usdtkit provider build shop.probes:shop -o shop.so
                                                 to ship with the application: Provider("shop", file="shop.so")
  usdtkit provider script --bpftrace shop        a program for bpftrace
  usdtkit provider script --bcc shop 'order__*'  a Python program for bcc
  usdtkit provider gc --days 7 --dry-run         files that nobody uses any more
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from usdtkit import processes, targets
from usdtkit.cli.values import days
from usdtkit.directories import provider_directories
from usdtkit.errors import NotFoundError, UsageError, UsdtkitError
from usdtkit.maps import executable_mappings, maps_of
from usdtkit.model import Probe
from usdtkit.output.text import printable
from usdtkit.privatedirs import UntrustedError, open_directory, stranger
from usdtkit.probes.provider import Provider

_FILE = re.compile(r"(?P<provider>[A-Za-z_][A-Za-z0-9_-]{0,63})-[0-9a-f]{16}\.so\Z", re.ASCII)
# The names under which `usdtkit.probes.files` writes a file before it renames it.
_TEMPORARY = re.compile(r"\.[A-Za-z_][A-Za-z0-9_-]{0,63}-[0-9a-f]{16}\.so\.[0-9a-f]{12}\Z", re.ASCII)
_DAY_S = 86_400
_DAYS = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `usdtkit provider`."""
    commands = parser.add_subparsers(dest="action", metavar="path | build | script | gc", required=True)
    path = commands.add_parser("path", help="print the files of a provider, the newest first, other users' last")
    path.add_argument("name", metavar="NAME")
    build = commands.add_parser("build", help="write a provider's file before the application runs")
    build.add_argument("provider", metavar="MODULE:PROVIDER", help="as in an import: shop.probes:shop")
    build.add_argument(
        "-o", "--output", metavar="FILE", help="where to write it (default: where processes will look for it)"
    )
    script = commands.add_parser("script", help="print a program for another tracer")
    script.add_argument("name", metavar="NAME", help="a provider, or the path of its file")
    script.add_argument("probe", nargs="?", default="*", help="only these probes, globs allowed")
    kind = script.add_mutually_exclusive_group(required=True)
    kind.add_argument("--bpftrace", action="store_true", help="a script for bpftrace")
    kind.add_argument("--bcc", action="store_true", help="Python, for the bcc of the distribution")
    gc = commands.add_parser("gc", help="remove old files that no process maps")
    gc.add_argument(
        "--days", type=days, default=_DAYS, help="files that have not been used for DAYS days (default: %(default)g)"
    )
    gc.add_argument("--dry-run", action="store_true", help="only print what would be removed")


def run(options: argparse.Namespace) -> int:
    """Run one of the commands."""
    action = {"path": _path, "build": _build, "script": _script, "gc": _gc}[options.action]
    return action(options)


def _path(options: argparse.Namespace) -> int:
    for path in _files_of(options.name):
        print(printable(str(path)))
    return 0


def _files_of(name: str) -> list[Path]:
    candidates = [
        (status.st_uid in (0, os.geteuid()), status.st_mtime, path)
        for path, match, status in _files(_FILE)
        if match["provider"] == name
    ]
    if not candidates:
        raise NotFoundError(
            f"no file of provider {name} in {', '.join(map(str, provider_directories()))}",
            hint="it is made when the application loads its probes, or by usdtkit provider build MODULE:PROVIDER",
        )
    # However new a file of another user is, it does not come before one of root's or ours.
    return [path for _, _, path in sorted(candidates, reverse=True)]


def _files(pattern: re.Pattern[str]) -> Iterator[tuple[Path, re.Match[str], os.stat_result]]:
    for directory in provider_directories():
        try:
            entries = sorted(directory.iterdir())
        except OSError:  # most of the directories do not exist
            continue
        for path in entries:
            if match := pattern.match(path.name):
                try:
                    status = path.lstat()
                except OSError:  # it was removed meanwhile
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield path, match, status


def _build(options: argparse.Namespace) -> int:
    module, colon, attribute = options.provider.partition(":")
    if not (module and colon and attribute):
        raise UsageError(
            f"{options.provider!r} does not name a provider", hint="MODULE:PROVIDER, such as shop.probes:shop"
        )
    # The module is searched as `python -m` does, in this directory and in PYTHONPATH, because the user wants it to run.
    # The command itself imports nothing from there.
    path_before = sys.path[:]
    from_environment = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path]  # noqa: PTH100
    sys.path[:0] = [str(Path.cwd()), *from_environment]
    try:
        provider: object = importlib.import_module(module)
        for part in attribute.split("."):
            provider = getattr(provider, part)
    except (ImportError, AttributeError) as error:
        raise NotFoundError(
            f"{options.provider}: {error}", hint="MODULE is searched in the current directory first"
        ) from error
    except UsdtkitError:
        raise
    except Exception as error:
        raise UsdtkitError(
            f"importing {module} failed: {type(error).__name__}: {error}", hint=f"python -m {module} shows where"
        ) from error
    finally:
        sys.path[:] = path_before
    if not isinstance(provider, Provider):
        raise UsageError(f"{options.provider} is a {type(provider).__name__}, not a Provider")
    print(printable(str(provider.build(options.output))))
    return 0


def _script(options: argparse.Namespace) -> int:
    files = [Path(options.name).absolute()] if "/" in options.name else _current_files(options.name)
    # The files come newest first. If several have a probe, its latest declaration counts.
    probes: dict[str, Probe] = {}
    for path in files:
        for target in targets.resolve(str(path), ()):
            for probe in targets.probes_in(target):
                if fnmatchcase(probe.name, options.probe):
                    probes.setdefault(probe.spec, probe)
    if not probes:
        where = ", ".join(map(str, files))
        raise NotFoundError(f"no probe {options.probe} in {where}", hint=f"usdtkit list {files[0]}")
    from usdtkit.cli import scripts

    print((scripts.bpftrace if options.bpftrace else scripts.bcc)(list(probes.values())))
    return 0


def _current_files(name: str) -> list[Path]:
    """The files of a provider that processes map, or all of its files if no process maps one."""
    files, mapped = _files_of(name), _mapped_names()
    trusted_files = [path for path in files if stranger(str(path)) is None]
    # Anybody may map a file of this name. Other users' files count only where there is none of root's or ours.
    return [path for path in trusted_files if path.name in mapped] or trusted_files or files


def _gc(options: argparse.Namespace) -> int:
    oldest_kept = time.time() - options.days * _DAY_S
    mapped = _mapped_names()
    removed = kept = 0
    for path, match, status in [*_files(_FILE), *_files(_TEMPORARY)]:
        if match.re is _FILE and (path.name in mapped or max(status.st_mtime, status.st_atime) > oldest_kept):
            kept += 1
            continue
        if match.re is _TEMPORARY and status.st_mtime > time.time() - _DAY_S:
            continue  # a process may be writing it
        if not options.dry_run:
            try:
                _unlink(path, status.st_uid)
            except (OSError, UntrustedError) as error:  # not ours, read-only, or removed by another process
                reason = error.strerror if isinstance(error, OSError) else error.message
                print(printable(f"{path}: {reason}"), file=sys.stderr)
                kept += 1
                continue
        print(printable(str(path)))
        removed += 1
    verb = "would be removed" if options.dry_run else "removed"
    why = f"mapped by a process, used in the last {options.days:g} days, or not ours to remove"
    print(f"{removed} {verb}, {kept} kept: {why}", file=sys.stderr)
    return 0


def _unlink(path: Path, owner: int) -> None:
    """Remove a file from a directory that only root, we and the owner of the file can replace.

    Otherwise the owner of the directory could replace it by a link to another one, and make us remove files there.
    """
    with open_directory(str(path.parent), trusted=[owner]) as directory:
        Path(f"/proc/self/fd/{directory.descriptor}/{path.name}").unlink()


def _mapped_names() -> set[str]:
    """The names of the provider files that processes map.

    A name contains a hash of the file, so it means the same file in every mount namespace. A process that may not be
    inspected belongs to another user, whose files we do not remove anyway.
    """
    names: set[str] = set()
    for pid in processes.running_pids():
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            names.update(mapping.name for mapping in executable_mappings(maps_of(pid)))
    return {name.removesuffix(" (deleted)").rpartition("/")[2] for name in names}
