import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from stubs import forget_providers

import usdtkit
from usdtkit import Provider
from usdtkit.errors import UnsupportedError, UsageError, UsdtkitError
from usdtkit.probes import files, image, loading, publishing

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("USDTKIT_DIR", str(tmp_path))
    forget_providers(monkeypatch)
    return tmp_path


def declared(*names, **arguments):
    shop = Provider("shop")
    return shop, *(shop.probe(name, **arguments) for name in names)


def python(script, **options):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, **options).stdout


def mapped(path):
    return str(path) in Path("/proc/self/maps").read_text()


def test_load_makes_all_visible_in_one_file(directory):
    shop, start, done = declared("order__start", "order__done", order_id="u64")
    assert shop.files == ()
    shop.load()
    (path,) = shop.files
    assert path.parent == directory
    assert path.name.startswith("shop-")
    assert start.path == done.path == str(path)
    assert mapped(path)
    shop.load()
    assert shop.files == (path,)


@pytest.mark.parametrize("use", [lambda probe: probe(1), lambda probe: probe.enabled], ids=["fire", "enabled"])
def test_the_first_use_loads(use):
    shop, start, done = declared("order__start", "order__done", order_id="u64")
    assert not use(start)
    assert start.path == done.path == str(shop.files[0])


def test_a_probe_declared_after_a_load_goes_into_a_further_file():
    shop, start = declared("order__start")
    shop.load()
    done = shop.probe("order__done")
    assert done.path is None
    shop.load()
    assert len(shop.files) == 2
    assert (start.path, done.path) == tuple(map(str, shop.files))


def test_two_modules_that_declare_the_same_have_the_same():
    one, first = declared("order__start")
    two, second, other = declared("order__start", "order__done")
    assert (one, first) == (two, second)
    one.load()
    assert first.path == other.path
    assert len(two.files) == 1


def test_build_writes_and_loads_nothing():
    shop, start = declared("order__start")
    path = shop.build()
    assert path.exists()
    assert not mapped(path)
    assert (shop.files, start.path) == ((), None)
    shop.load()
    assert shop.files == (path,)
    assert shop.build() == path


def test_a_file_that_was_built_ahead_is_the_one_that_is_loaded(tmp_path, directory):
    shop, _ = declared("order__start")
    shipped = shop.build(tmp_path / "shipped.so")
    assert (shipped, shipped.stat().st_mode & 0o777) == (tmp_path / "shipped.so", 0o644)
    script = f"""
from usdtkit import Provider
shop = Provider("shop", file={str(shipped)!r})
start = shop.probe("order__start")
shop.load()
more = shop.probe("more")
shop.load()
print(*shop.files, start.path, sep="\\n")
"""
    first, second, path = python(script).splitlines()
    assert first == path == str(shipped)
    assert second.startswith(f"{directory}/shop-")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.chmod(0o666), "can be written by other users"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "does not hold these probes"),
        (lambda path: path.write_bytes(image.build("shop", [])), "does not hold these probes"),
    ],
)
def test_a_file_that_was_built_ahead_and_does_not_fit_is_replaced_with_a_warning(tmp_path, monkeypatch, spoil, why):
    shop, _ = declared("order__start")
    shipped = shop.build(tmp_path / "shipped.so")
    spoil(shipped)
    forget_providers(monkeypatch)
    shop = Provider("shop", file=shipped)
    start = shop.probe("order__start")
    with pytest.warns(RuntimeWarning, match=why):
        start()
    assert start.path.startswith(f"{tmp_path}/shop-")


def test_unload_silences_and_load_undoes_it():
    shop, start = declared("order__start")
    shop.load()
    shop.unload()
    later = shop.probe("later")
    assert not start.enabled and not later.enabled
    assert later.path is None
    start()
    later()
    assert later.path is None
    shop.load()
    assert later.path == str(shop.files[1])


def test_a_fast_nop_only_where_the_kernel_makes_it_fast(monkeypatch):
    for optimised, code in ((True, "0f1f440000c3"), (False, "90c3cccccccc")):
        monkeypatch.setattr(publishing, "_optimises", optimised)
        forget_providers(monkeypatch)
        shop = Provider("shop", nop="fast")
        shop.probe("order__start")
        content = shop.build().read_bytes()
        offset, size = image.text_of(content)
        assert (content[offset : offset + 6].hex(), size) == (code, 16)


def test_build_without_probes():
    with pytest.raises(UsageError, match="shop has no probes"):
        Provider("shop").build()
    Provider("shop").load()


def no_directory(*_):
    raise UnsupportedError("no directory", hint="make one")


def test_in_memory_with_one_warning(tmp_path, monkeypatch):
    # A file where a directory should be, and none of the usual places.
    script = """
import os, sys, warnings
from usdtkit.probes import files
from usdtkit import Provider
files.candidates = lambda: [sys.executable]
shop = Provider("shop")
start = shop.probe("order__start", order_id="u64")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    start(1)
    start(1)
print(len(caught), caught[0].filename, caught[0].message)
print(shop.files[0] == start.path == f"/proc/{os.getpid()}/fd/{start.path.split('/')[-1]}")
print("memfd:shop" in open("/proc/self/maps").read())
try:
    Provider("shop").build()
    shop.probe("other")
    shop.build()
except Exception as error:
    print(type(error).__name__)
"""
    warned, *rest = python(script).splitlines()
    assert warned.startswith("1 <string> no directory can hold")
    assert "USDTKIT_DIR" in warned
    assert rest == ["True", "True", "UsageError"]


def test_where_nothing_can_be_loaded_load_says_so_and_use_goes_on(monkeypatch):
    shop, start = declared("order__start")
    monkeypatch.setattr(files, "store", no_directory)
    monkeypatch.setattr(files, "store_in_memory", no_directory)
    with pytest.raises(UsdtkitError, match="no directory"):
        shop.load()
    with pytest.warns(RuntimeWarning, match="no directory; the probes of shop stay silent") as caught:
        assert start() is None
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert start() is None
        assert start.enabled is False
    assert start.path is None


def shop_content():
    return image.build("shop", [])


def test_a_file_that_cannot_be_mapped(monkeypatch, tmp_path):
    (tmp_path / "broken.so").write_bytes(b"no library")
    content = shop_content()
    monkeypatch.setattr(files, "store", lambda *_: files.Stored(str(tmp_path / "broken.so"), content))
    shop, start = declared("order__start")
    with pytest.raises(UsdtkitError, match=r"the probes of shop cannot be loaded: .*broken\.so"):
        shop.load()
    assert start.path is None


def test_on_another_machine_probes_do_nothing_and_say_so_once(monkeypatch):
    monkeypatch.setattr(loading, "machine", lambda: "")
    shop, start = declared("order__start", order_id="u64")
    with pytest.warns(RuntimeWarning, match="do nothing on this machine"):
        shop.load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shop.load()
        assert start(1) is None
        assert start.enabled is False
    shop.probe("other")
    with pytest.raises(UnsupportedError):
        shop.build()


def test_build_for_the_machine_it_runs_on(monkeypatch):
    monkeypatch.setattr(loading, "machine", lambda: "aarch64")
    shop, _ = declared("order__start")
    assert "AArch64" in subprocess.run(["readelf", "-h", shop.build()], capture_output=True, text=True).stdout


def test_a_probe_fired_within_its_own_load_is_let_pass(monkeypatch):
    shop, start = declared("order__start")
    store = files.store

    def store_and_fire(*arguments):
        assert start() is None
        assert start.enabled is False
        return store(*arguments)

    monkeypatch.setattr(files, "store", store_and_fire)
    start()
    assert start.path == str(shop.files[0])


def test_threads_that_use_a_probe_at_once_load_it_once(monkeypatch):
    for _ in range(20):
        forget_providers(monkeypatch)
        shop, start, done = declared("order__start", "order__done")
        barrier = threading.Barrier(8)

        def use(probe, barrier=barrier):
            barrier.wait()
            probe()

        threads = [threading.Thread(target=use, args=[probe]) for probe in (start, done) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(shop.files) == 1
        assert start.path == done.path == str(shop.files[0])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_in_the_midst_of_another_threads_load(monkeypatch):
    shop, start = declared("order__start")
    store, inside, forked = files.store, threading.Event(), threading.Event()

    def slow(*arguments):
        inside.set()
        assert forked.wait(20)
        return store(*arguments)

    monkeypatch.setattr(files, "store", slow)
    loader = threading.Thread(target=shop.load)
    loader.start()
    assert inside.wait(20)
    child = os.fork()
    if child == 0:
        files.store = store
        start()
        os._exit(0 if start.path else 1)
    forked.set()
    loader.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert start.path == str(shop.files[0])


def test_at_the_end_of_the_interpreter():
    script = """
import atexit
from usdtkit import Provider
shop = Provider("shop")
loaded, late, never = shop.probe("loaded"), Provider("late").probe("late"), Provider("never").probe("never")
shop.load()
class Last:
    def __del__(self, loaded=loaded, never=never, print=print):
        loaded()
        never()
        print(loaded.enabled)
kept = Last()
atexit.register(lambda: print(late.enabled))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\nFalse\n", "")


def test_an_application_imports_no_tracer():
    script = """
import sys
from usdtkit import Provider
shop = Provider("shop")
shop.probe("order__start", order_id="u64")(1)
print(*sorted({name.partition(".")[0] for name in sys.modules} | {"usdtkit.bpf", "usdtkit._shim"} & set(sys.modules)))
"""
    modules = set(python(script).split())
    assert modules.isdisjoint(
        {"cffi", "_cffi_backend", "elftools", "bcc", "ctypes", "dataclasses", "inspect", "subprocess"}
    )
    assert modules.isdisjoint({"usdtkit.bpf", "usdtkit._shim"})
    assert "usdtkit" in modules


def test_the_public_names():
    assert {"Probe", "Provider", "UsdtkitError", "argument", "u64"} < set(usdtkit.__all__)
    assert all(hasattr(usdtkit, name) for name in usdtkit.__all__)


def test_without_the_compiled_module_probes_do_nothing_and_say_so_once():
    script = """
import sys, warnings
sys.modules["usdtkit._probe"] = None
from usdtkit import Provider, testing
warnings.simplefilter("always")
shop = Provider("shop")
start = shop.probe("order__start", order_id="u64")
with warnings.catch_warnings(record=True) as caught:
    start(1)
    start.lazy(lambda: 1 / 0)
    with shop.span("pay", id=1):
        start("wrong")
print(len(caught), caught[0].message)
print(start, start.enabled, start.dropped, start.path, type(start).__module__, type(start)[...])
try:
    with testing.record_probes():
        pass
except OSError as error:
    print(error)
"""
    warned, shown, refused = python(script).splitlines()
    assert warned.startswith("1 the probes of shop cannot be loaded: usdtkit's compiled module is not built")
    assert shown.startswith(
        "<Probe shop:order__start(order_id: u64)> False 0 None usdtkit.probes.silent usdtkit.probes"
    )
    assert refused == "usdtkit's compiled module is not built for this system and interpreter"


def test_an_import_is_not_made_slow_by_others():
    """Typing and what it imports would take more than twice as long as all of ours."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); from usdtkit import Provider; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", program, str(Path(usdtkit.__file__).parents[1])]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "usdtkit.probes.provider" in imported
    assert imported.isdisjoint({"typing", "re", "enum", "threading", "contextlib", "functools", "pathlib", "inspect"})
