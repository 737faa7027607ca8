"""What the command imports: nothing from the current directory, and as root nothing that another user could write."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [str(Path(sys.executable).with_name("usdtkit"))]
MODULE = [sys.executable, "-m", "usdtkit"]
STRANGER = 12345
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root imports what others wrote without wanting to")
# Of Python's library, of ours, and what Python imports by itself when it starts.
PLANTED = ["json.py", "re.py", "argparse.py", "cffi.py", "usdtkit/__init__.py", "sitecustomize.py", "usercustomize.py"]
# Once Python runs, it is too late for what it imports at its start, and for the package itself.
LATER = ["json.py", "argparse.py", "cffi.py"]


@pytest.fixture
def plant(tmp_path):
    """plant(names, owner) -> a directory with modules of these names, each of which leaves a file where it ran."""

    def make(names, owner=0):
        folder = tmp_path / "planted"
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
            for each in (path, *path.parents):
                if each.is_relative_to(folder):
                    os.chown(each, owner, owner)
        return folder

    return make


def ran(tmp_path):
    return (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""


def run(command, *arguments, **options):
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, **options)


def list_of(command, **options):
    """A command that imports much: its JSON, of a program that has probes."""
    done = run(command, "list", "--json", "stdc++", **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('{"schema": "usdtkit.list/1", "time": ')


@pytest.mark.parametrize("owner", [0, STRANGER])
@pytest.mark.parametrize("how", ["here", "path", "path of here", "userbase", "home"])
def test_the_command_imports_nothing_planted(plant, tmp_path, how, owner):
    if owner and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    below = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/"
    names = {"userbase": [below.removeprefix(".local/") + each for each in PLANTED]}
    names["home"] = [below + each for each in PLANTED]
    folder = plant(names.get(how, PLANTED), owner)
    environment = {
        "here": {},
        "path": {"PYTHONPATH": str(folder)},
        "path of here": {"PYTHONPATH": f":{folder.parent}:"},
        "userbase": {"PYTHONUSERBASE": str(folder)},
        "home": {"HOME": str(folder)},
    }[how]
    list_of(COMMAND, cwd=folder, env=os.environ | environment)
    assert ran(tmp_path) == ""


def test_the_command_starts_whatever_the_environment_says(tmp_path):
    hostile = {"PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "no"), "PYTHONINSPECT": "1"}
    list_of(COMMAND, env=os.environ | hostile, cwd="/")


@AS_ROOT
@pytest.mark.parametrize("owner", [0, STRANGER])
@pytest.mark.parametrize("how", ["here", "path", "path of here"])
def test_as_a_module_it_imports_nothing_planted_as_root(plant, tmp_path, how, owner):
    folder = plant(LATER, owner)
    environment = {"here": {}, "path": {"PYTHONPATH": str(folder)}, "path of here": {"PYTHONPATH": ":/nowhere"}}[how]
    list_of(MODULE, cwd=folder if how != "path" else "/", env=os.environ | environment)
    assert ran(tmp_path) == ""


def path_of(**options):
    """Where the command, started as a module by root, imports from."""
    code = (
        "import sys; from usdtkit import __main__ as m; m._leave_out_what_others_can_write(); print(*sys.path, sep=';')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)
    return done.stdout.rstrip().split(";")


@AS_ROOT
def test_what_only_root_could_have_written_comes_last(plant, tmp_path):
    folder = plant(LATER)
    environment = os.environ | {"PYTHONPATH": f"{folder}:{tmp_path}/missing"}
    assert path_of(env=environment, cwd="/")[-1] == str(folder)
    os.chown(folder, STRANGER, STRANGER)
    assert str(folder) not in path_of(env=environment, cwd="/")
    os.chown(folder, 0, 0)
    folder.chmod(0o777)
    assert str(folder) not in path_of(env=environment, cwd="/")
    folder.chmod(0o1777)  # where nobody can rename, but anybody can add a module
    assert str(folder) not in path_of(env=environment, cwd="/")


@AS_ROOT
def test_what_belongs_to_python_stays(plant):
    whole = os.pathsep.join(filter(None, sys.path))
    plain = path_of(cwd="/", env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    named = path_of(cwd="/", env=os.environ | {"PYTHONPATH": whole})
    assert {path for path in plain if path.startswith(sys.prefix)} <= set(named)
    list_of(MODULE, cwd="/", env=os.environ | {"PYTHONPATH": whole})


@pytest.mark.parametrize("command", [COMMAND, MODULE], ids=["command", "module"])
def test_a_module_that_the_user_names_is_found_by_its_path(tmp_path, command):
    (tmp_path / "shop_probes.py").write_text(
        "from usdtkit import Provider\nshop = Provider('shop')\nshop.probe('order')\n"
    )
    build = ["provider", "build", "shop_probes:shop", "-o", tmp_path / "shop.so"]
    done = run(command, *build, cwd="/", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "shop.so").read_bytes().startswith(b"\x7fELF")


def test_a_directory_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    script = f'mkdir {gone} && cd {gone} && rmdir {gone} && exec "$@"'
    # With a relative PYTHONPATH, Python without -I would not even start there.
    for command, paths in ((COMMAND, ":/nowhere"), (MODULE, "/nowhere")):
        done = run(["sh", "-c", script, "sh", *command], "--version", env=os.environ | {"PYTHONPATH": paths})
        assert done.returncode == 0, done.stderr


def test_the_command_by_its_links(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below/first").symlink_to(COMMAND[0])
    (tmp_path / "second").symlink_to("below/first")
    for path in (COMMAND[0], tmp_path / "below/first", tmp_path / "second"):
        done = run([path], "--version")
        assert (done.returncode, done.stderr) == (0, "")


def test_the_command_without_its_python(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    text = Path(COMMAND[0]).read_text().replace("/usr/bin/python", "/nowhere/python")
    (folder / "usdtkit").write_text(text.replace("/usr/local/bin/python", "/nowhere/python"))
    (folder / "usdtkit").chmod(0o755)
    done = run([folder / "usdtkit"], "--version")
    assert done.returncode == 5 and "hint: " in done.stderr


def test_the_command_finds_the_packages_of_its_own_installation(tmp_path):
    """As pip install --user has it: the script in PREFIX/bin, the packages in PREFIX/lib."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tmp_path / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    shutil.copy(COMMAND[0], tmp_path / "bin/usdtkit")
    base = Path(sys.base_prefix) / "bin" / version
    (tmp_path / "bin" / version).write_text(f'#!/bin/sh\nexec {base} "$@"\n')
    (tmp_path / "bin" / version).chmod(0o755)
    (packages / "here.pth").write_text("\n".join(filter(None, sys.path)) + "\n")
    done = run([tmp_path / "bin/usdtkit"], "--version", cwd="/")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_arguments_arrive_as_they_were():
    done = run(COMMAND, "no such  command", "'", '"', "$HOME", "*")
    assert done.returncode == 2 and "no command or tool is called 'no such  command'" in done.stderr
