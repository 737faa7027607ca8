import os
import subprocess
import sys
import time

import pytest
from stubs import forget_providers

from usdtkit import Provider, cli, directories
from usdtkit.cli import main, scripts
from usdtkit.errors import UsageError
from usdtkit.model import Argument, Probe


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """The only one that holds provider files."""
    place = tmp_path / "probes"
    place.mkdir()
    forget_providers(monkeypatch)
    monkeypatch.setenv("USDTKIT_DIR", str(place))
    monkeypatch.setattr(cli.importlib.import_module("usdtkit.cli.provider"), "provider_directories", lambda: [place])
    return place


OWN = f"shop_{os.getpid()}"
"""A name of this process alone: what other processes of this machine map must not matter."""


def built(name, *probes):
    provider = Provider(name)
    for probe in probes:
        provider.probe(probe, id="u64")
    return provider.build()


def test_path_is_of_that_provider_the_newest_first(capsys, monkeypatch):
    old = built("shop", "a")
    forget_providers(monkeypatch)
    new = built("shop", "b")
    os.utime(old, (1, 1))
    built("shop-keeper", "a")
    assert main(["provider", "path", "shop"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(new), str(old)]
    assert main(["provider", "path", "keeper"]) == 4
    assert "no file of provider keeper" in capsys.readouterr().err


def test_build_of_a_module(tmp_path, capsys, monkeypatch, directory):
    (tmp_path / "ahead_of_time.py").write_text(
        "from usdtkit import Provider\nclass Probes:\n    shop = Provider('shop')\n"
        "Probes.shop.probe('order')\nother = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["provider", "build", "ahead_of_time:Probes.shop", "-o", "shop.so"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/shop.so\n"
    assert main(["provider", "build", "ahead_of_time:Probes.shop"]) == 0
    assert (tmp_path / "shop.so").read_bytes() == next(directory.iterdir()).read_bytes()
    for wrong, code in (("ahead_of_time", 2), ("ahead_of_time:none", 4), ("nowhere:x", 4), ("ahead_of_time:other", 2)):
        assert main(["provider", "build", wrong]) == code
    assert str(tmp_path) not in sys.path


def test_gc_removes_what_is_old_and_not_mapped(capsys, directory, monkeypatch):
    old, mapped, new = built("old", "a"), built("mapped", "a"), built("new", "a")
    damaged, temporary = directory / f"old-{'0' * 16}.so", directory / f".old-{'0' * 16}.so.{'0' * 12}"
    others = [directory / "other.so", directory / f"link-{'0' * 16}.so"]
    damaged.write_bytes(b"")
    temporary.write_bytes(b"")
    others[0].write_bytes(b"")
    others[1].symlink_to(new)
    for path in (old, mapped, damaged, temporary, others[0]):
        os.utime(path, (time.time() - 31 * 86400,) * 2)
    Provider("mapped").load()
    os.utime(mapped, (1, 1))
    everything = set(directory.iterdir())
    assert main(["provider", "gc", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert set(shown.out.splitlines()) == {str(old), str(damaged), str(temporary)}
    assert "3 would be removed, 2 kept" in shown.err
    assert set(directory.iterdir()) == everything
    assert main(["provider", "gc"]) == 0
    assert set(directory.iterdir()) == everything - {old, damaged, temporary}
    assert main(["provider", "gc", "--days", "0"]) == 0
    assert set(directory.iterdir()) == {mapped, *others}


def probe(path="/tmp/a.so", provider="shop", name="order", argument="id", **more):
    return Probe(path, provider, name, (), (Argument(argument, "u64", 0, **more),))


@pytest.mark.parametrize("write", [scripts.bpftrace, scripts.bcc])
@pytest.mark.parametrize(
    "hostile",
    [
        {"path": '/tmp/a";system("id");//.so'},
        {"path": "/tmp/a b.so"},
        {"provider": "shop\n"},
        {"provider": "a:b"},
        {"name": 'order"'},
        {"name": "\udcff"},
        {"argument": "a;b"},
        {"argument": "a b"},
    ],
)
def test_hostile_names_are_refused(write, hostile):
    with pytest.raises(UsageError, match=r"cannot be written in|cannot be used as a name"):
        write([probe(**hostile)])


def test_hostile_texts_stay_in_their_literals():
    nasty = 'x"; } END { system("id"); } //\\%s\n'
    text = scripts.bpftrace([probe(doc=nasty, unit=nasty, names=((nasty, 1),))])
    assert '"x?; } END { system(?id?); } //??s?"' in text
    assert [line for line in text.splitlines() if "system" in line and not line.startswith("// ")] == [
        '\t@shop_order_id[(int64)1] = "x?; } END { system(?id?); } //??s?";'
    ]
    compile(scripts.bcc([probe(doc=nasty, unit=nasty, names=((nasty, 1),))]), "script", "exec")


def test_script_of_a_path_and_of_some_probes(capsys):
    path = built("shop", "order__start", "order__done", "paid")
    assert main(["provider", "script", str(path), "order__*", "--bpftrace"]) == 0
    text = capsys.readouterr().out
    assert "shop:order__start\n" in text and "shop:order__done\n" in text and "paid" not in text
    assert main(["provider", "script", "shop", "nothing", "--bpftrace"]) == 4
    assert main(["provider", "script", "shop"]) == 2


def test_script_of_a_provider_with_several_files(capsys, monkeypatch, directory):
    name = OWN
    old = built(name, "gone", "paid")
    os.utime(old, (1, 1))
    forget_providers(monkeypatch)
    shop = Provider(name)
    first = shop.probe("order", id="u64")
    paid = shop.probe("paid", id="u64", currency="str")
    newer = shop.build()
    os.utime(newer, (2, 2))

    def attached(*options):
        assert main(["provider", "script", "--bpftrace", name, *options]) == 0
        return sorted(line for line in capsys.readouterr().out.splitlines() if line.startswith("usdt:"))

    # Nobody maps any: of each probe the newest.
    assert attached() == sorted([f"usdt:{old}:{name}:gone", f"usdt:{newer}:{name}:order", f"usdt:{newer}:{name}:paid"])
    shop.load()
    later = shop.probe("later")
    shop.load()
    last = shop.files[1]
    assert attached() == sorted(f"usdt:{probe.path}:{name}:{probe.name}" for probe in (first, paid, later))
    assert attached("later") == [f"usdt:{last}:{name}:later"]


def test_a_module_that_fails(tmp_path, capsys, monkeypatch):
    for name, text, said in (
        ("fails_to_run", "1 / 0", "importing fails_to_run failed: ZeroDivisionError: division by zero"),
        ("fails_to_parse", "def (", "importing fails_to_parse failed: SyntaxError: "),
        ("fails_to_declare", "from usdtkit import Provider\nProvider('ö')", "'ö' cannot be the name of a provider"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.chdir(tmp_path)
        assert main(["provider", "build", f"{name}:shop"]) != 0
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "x"])
def test_gc_takes_days_that_are_some(capsys, directory, days):
    path = built(OWN, "a")
    os.utime(path, (1, 1))
    assert main(["provider", "gc", f"--days={days}"]) == 2
    assert "is not a number of days" in capsys.readouterr().err
    assert path.exists()


def test_gc_goes_on_where_it_may_not_remove(capsys, directory, monkeypatch):
    path = built(OWN, "a")
    os.utime(path, (1, 1))

    def refuse(self):
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(type(path), "unlink", refuse)
        assert main(["provider", "gc"]) == 0
    said = capsys.readouterr()
    assert (said.out, path.exists()) == ("", True)
    assert f"{path}: Read-only file system" in said.err
    assert "0 removed, 1 kept" in said.err


def test_the_directories_are_those_of_the_application():
    assert directories.application_directories()[0].name == "probes"


def test_help_names_the_actions():
    done = subprocess.run([sys.executable, "-m", "usdtkit", "provider", "-h"], capture_output=True, text=True)
    assert done.returncode == 0
    for word in ("path", "build", "script", "gc"):
        assert word in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root is the one who is led astray")
def test_gc_of_root_removes_nothing_where_a_stranger_leads_it(directory, tmp_path, monkeypatch, capsys):
    path = built("shop", "a")
    os.utime(path, (1, 1))
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "usdtkit").symlink_to(path.parent)
    for each in (stranger, stranger / "usdtkit"):
        os.chown(each, 12345, 12345, follow_symlinks=False)
    module = cli.importlib.import_module("usdtkit.cli.provider")
    monkeypatch.setattr(module, "provider_directories", lambda: [stranger / "usdtkit"])
    assert main(["provider", "gc"]) == 0
    said = capsys.readouterr()
    assert path.exists() and said.out == ""
    assert f"{stranger} belongs to another user" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_newest_file_of_a_stranger_comes_last(directory, monkeypatch, capsys):
    own = built("shop", "a")
    os.utime(own, (1, 1))
    forget_providers(monkeypatch)
    theirs = built("shop", "b")
    os.chown(theirs, 12345, 12345)
    assert main(["provider", "path", "shop"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(own), str(theirs)]
    assert main(["provider", "script", "--bpftrace", "shop"]) == 0
    assert str(theirs) not in capsys.readouterr().out
