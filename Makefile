# make demo    everything in network namespaces, real traffic, a table that fills; ONCE=1 ends by itself
# make test    every check, and the tests with a sample of their long variants
# make test-full  every variant of every test; about an hour
# make soak    200 tries of every size and shape of malicious file (TRIES=n for fewer); about an hour
# make fuzz    every parser of hostile bytes, MINUTES=10 each (TARGET=name for one); findings go to artifacts/fuzz
# make bench   the figures of docs/acceptance.md on this machine
# make bench-center    what a centre bears: thousands of simulated boxes, every back end (QUICK=1: a minute)
# make image   the box's system: a disk for new boxes, a bundle for those at work (BOARD=arm64, COUNTER=n, VERSION=x)
# make test-image   that image in QEMU: starts, bridges, takes the next one, goes back, has its power cut; an hour or more without KVM
# Each does its own set-up first (root; Debian 12 or 13). Nothing here starts a service of the machine.

PY := .venv/bin/python
.PHONY: demo test test-full soak fuzz bench bench-center image test-image image-setup setup lint lock clean

demo: setup
	@.venv/bin/sekisho lab demo $(if $(ONCE),--once)

test: lint
	@$(PY) -m pytest

test-full: lint
	@$(PY) -m pytest -m ""

soak: setup
	@SEKISHO_TRIES=$(or $(TRIES),200) $(PY) -m pytest -s tests/hold/test_never_complete.py

fuzz: setup
	@$(PY) tests/fuzz/run.py $(TARGET) --minutes $(or $(MINUTES),10)

bench: setup
	@setup/apt.sh squid c-icap libc-icap-mod-virus-scan clamav-daemon mosquitto-clients
	@.venv/bin/sekisho bench

bench-center: setup
	@.venv/bin/sekisho bench center $(if $(QUICK),--quick)

BOARD := amd64
CROSS_arm64 := gcc-aarch64-linux-gnu libc6-dev-arm64-cross
CROSS_amd64 := gcc-x86-64-linux-gnu libc6-dev-amd64-cross
image: image-setup
	@$(PY) -m sekisho.firmware.image.build --board $(BOARD) --counter $(or $(COUNTER),1) --version $(or $(VERSION),0.1.0)

test-image: image-setup
	@SEKISHO_BOARD=$(BOARD) $(PY) -m pytest -s -v -o faulthandler_timeout=0 firmware/image/tests

image-setup: setup
	@setup/apt.sh mmdebstrap rauc cryptsetup-bin squashfs-tools dosfstools mtools fdisk e2fsprogs grub-common dbus libglib2.0-bin \
	  qemu-system-x86 ovmf $(if $(filter arm64,$(BOARD)),qemu-system-arm qemu-efi-aarch64) \
	  $(if $(filter $(BOARD),$(shell dpkg --print-architecture)),,qemu-user-static arch-test $(CROSS_$(BOARD)))

lint: setup
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

setup:
	@setup/apt.sh
	@setup/venv.sh

lock:
	@setup/lock.sh

clean:
	rm -rf artifacts build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .venv
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
