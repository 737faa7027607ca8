"""The Debian packages: built from the source distribution, without an error of lintian, and working when installed."""

import shutil

import pytest

PAGES = ["usr/share/man/man8/usdtkit.8.gz", "usr/share/man/man8/usdtkit-trace.8.gz"]
COMPLETIONS = [
    "usr/share/bash-completion/completions/usdtkit",
    "usr/share/zsh/vendor-completions/_usdtkit",
    "usr/share/fish/vendor_completions.d/usdtkit.fish",
]


@pytest.fixture(scope="module")
def packager(bare, sdist):
    """The machine where the packages were built, in /build."""
    machine = bare("trixie", "/packager")
    (machine.files / "build").mkdir(parents=True)
    shutil.copy(sdist, machine.files / "build")
    machine.run(
        "cd /build; mkdir source; tar xf *.tar.gz -C source --strip-components=1; cd source; "
        "dpkg-buildpackage --build=binary --no-sign"
    )
    return machine


@pytest.fixture(scope="module")
def installed(bare, packager):
    """A bare machine where apt has installed them, without what they suggest, which is bcc."""
    machine = bare("trixie")
    (machine.files / "debs").mkdir(parents=True)
    for package in packager.files.glob("build/*.deb"):
        shutil.copy(package, machine.files / "debs")
    machine.run("apt-get update; apt-get install --yes --no-install-recommends /debs/usdtkit_*.deb /debs/python3-*.deb")
    return machine


def test_lintian_finds_no_error(packager):
    packager.run("lintian --fail-on error /build/*.changes")


def test_pages_completions_and_unit_are_where_debian_has_them(packager, installed):
    listed = installed.run("dpkg -L usdtkit").stdout.splitlines()
    assert {f"/{path}" for path in (*PAGES, *COMPLETIONS)} <= {*listed}
    assert {path for path in listed if path.endswith("/usdtkit@.service")}
    assert all((packager.files / "build/source/debian/usdtkit" / path).stat().st_size > 100 for path in COMPLETIONS)


def test_the_command_traces_and_the_package_fires(installed):
    done = installed.run("usdtkit gethostlatency --json --command 'getent ahosts localhost'")
    assert '"host": "localhost"' in done.stdout
    done = installed.run('python3 -c \'import usdtkit; print(usdtkit.Provider("debshop").probe("order__start")())\'')
    assert done.stdout == "None\n"
