# eigentrain: one Makefile, one build.   `make help` lists what it can do.
#
#   make            build/eigentrain
#   make demo       train on Fashion-MNIST on two ranks and draw the figures
#   make reproduce  every study at its small size, and a page about what holds of five papers (FULL=1: published sizes, days)
#   make check      lint and tests (SAN=1: with the address and undefined-behaviour sanitizers)
#   make bench      speed beside the machine's limit and beside other programs, in one run (STUDIES="step svd": a part)
#   make bench-compare OLD=old.json   what became slower or faster since that older build/bench.json
#   make lint       floors, one library per room, contract comments, cppcheck, clang-tidy, format
#   make info       the resolved flags and versions
#   make install    PREFIX=/usr/local
#
# demo, reproduce, check and bench first install what is missing with apt-get when they may (root on a Debian
# system); INSTALL=0 forbids it. On a cluster set CC/MPICC and, where pkg-config does not know a
# library, PETSC_DIR, SLEPC_DIR, SCALAPACK_LIBS, BLAS_LIBS, HDF5_CFLAGS, HDF5_LIBS, YAML_LIBS,
# RANDOM123_CFLAGS.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VERSION := 0.1.0
SAN     ?= 0
BUILD   ?= build$(if $(filter 1,$(SAN)),/san)
PREFIX  ?= /usr/local
INSTALL ?= 1
MPICC   ?= mpicc
RANKS   ?= 2
NPROC   := $(shell nproc 2>/dev/null || echo 1)

# Open MPI refuses to run as root, and to start more ranks than cores, unless it is told otherwise.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
MPIRUN ?= mpirun --oversubscribe

# ---------------------------------------------------------------- packages (Debian names)
PACKAGES_build := gcc libc6-dev pkg-config libopenmpi-dev openmpi-bin libscalapack-openmpi-dev libpetsc-real-dev \
	libslepc-real-dev libhdf5-openmpi-dev libopenblas-dev libyaml-dev librandom123-dev zlib1g-dev
PACKAGES_demo  := $(PACKAGES_build) python3 python3-h5py python3-numpy python3-matplotlib \
	python3-pil python3-jinja2 dataset-fashion-mnist
PACKAGES_reproduce := $(PACKAGES_demo) python3-yaml
PACKAGES_check := $(PACKAGES_reproduce) python3-scipy python3-xarray python3-h5netcdf python3-pytest python3-pytest-xdist \
	libcmocka-dev hdf5-tools cppcheck clang-tidy clang-format git slurm-wlm munge
PACKAGES_bench := $(PACKAGES_demo) python3-scipy python3-torch

# $(call need,LIST): install what of LIST is missing, or say what is missing and stop. A machine
# without dpkg is a cluster with modules: there the configuration step below names what it lacks.
define need
@if command -v dpkg-query >/dev/null; then \
  missing=""; for p in $(1); do \
    [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; done; \
  if [ -n "$$missing" ]; then \
    if [ "$(INSTALL)" = 1 ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
      echo "installing:$$missing"; export DEBIAN_FRONTEND=noninteractive; \
      { apt-get update -q && apt-get install -y -q --no-install-recommends $$missing; } > $(BUILD)/apt.log 2>&1 \
        || { tail -n 20 $(BUILD)/apt.log >&2; echo "apt-get failed; the whole log is in $(BUILD)/apt.log" >&2; exit 3; }; \
    else \
      echo "These Debian packages are missing, and this make may not install them (not root, no apt-get, or INSTALL=0):" >&2; \
      echo "    apt-get install$$missing" >&2; \
      echo "On a cluster load the modules (names vary): openmpi, openblas or mkl, scalapack, petsc (real), slepc," >&2; \
      echo "hdf5-parallel, libyaml, random123, python with h5py, numpy and matplotlib; then see the head of the Makefile." >&2; \
      exit 3; \
    fi; \
  fi; \
fi
endef

$(BUILD) $(BUILD)/obj $(BUILD)/tests:
	@mkdir -p $@
$(BUILD)/.packages-%: Makefile | $(BUILD)
	$(call need,$(PACKAGES_$*))
	@touch $@

# ---------------------------------------------------------------- configuration (cached)
# Resolved once, after the packages are there: make re-reads itself when config.mk is new.
$(BUILD)/config.mk: $(BUILD)/.packages-build
	@{ \
	known() { pkg-config --exists "$$1" 2>/dev/null; }; \
	pick() { v="$$1_LIBS"; if [ -n "$${!v:-}" ]; then return; fi; for m in $$2; do if known $$m; then echo "$$1_CFLAGS ?= $$(pkg-config --cflags $$m)"; \
	         echo "$$1_LIBS ?= $$(pkg-config --libs $$m)"; return; fi; done; \
	         echo "eigentrain: no pkg-config file for $$1 (tried: $$2); set $$1_CFLAGS and $$1_LIBS" >&2; }; \
	if [ -n "$${PETSC_DIR:-}" ]; then a="$$PETSC_DIR/$${PETSC_ARCH:-}"; \
	  echo "PETSC_CFLAGS ?= -I$$PETSC_DIR/include -I$$a/include"; echo "PETSC_LIBS ?= -L$$a/lib -Wl,-rpath,$$a/lib -lpetsc"; \
	else pick PETSC "petsc PETSc"; fi; \
	if [ -n "$${SLEPC_DIR:-}" ]; then a="$$SLEPC_DIR/$${PETSC_ARCH:-}"; \
	  echo "SLEPC_CFLAGS ?= -I$$SLEPC_DIR/include -I$$a/include"; echo "SLEPC_LIBS ?= -L$$a/lib -Wl,-rpath,$$a/lib -lslepc"; \
	else pick SLEPC "slepc SLEPc"; fi; \
	pick SCALAPACK "scalapack-openmpi scalapack scalapack-mpich"; \
	pick HDF5 "hdf5-openmpi hdf5-mpich hdf5"; pick BLAS "openblas flexiblas mkl-dynamic-lp64-seq"; \
	pick YAML "yaml-0.1"; pick ZLIB "zlib"; \
	if known cmocka; then pick CMOCKA cmocka; fi; \
	echo "PYTHON ?= $$(for p in python3 /usr/bin/python3; do \
	   if command -v $$p >/dev/null && $$p -c 'import h5py, numpy' 2>/dev/null; then echo $$p; break; fi; done)"; \
	} > $@.tmp
	@mv $@.tmp $@
# Python and cmocka may arrive with a later package set.
$(BUILD)/.packages-demo $(BUILD)/.packages-reproduce $(BUILD)/.packages-check $(BUILD)/.packages-bench: | $(BUILD)/.packages-build

ifeq ($(filter clean help,$(MAKECMDGOALS)),)
include $(BUILD)/config.mk
endif
find_python = for p in "$(PYTHON)" python3 /usr/bin/python3; do \
	if [ -n "$$p" ] && command -v $$p >/dev/null && $$p -c 'import h5py, numpy, matplotlib' 2>/dev/null; then python=$$p; break; fi; done; \
	[ -n "$${python:-}" ] || { echo "no python3 with h5py, numpy and matplotlib" >&2; exit 3; }

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter
OPT    ?= -O3
CFLAGS ?=
comma    := ,
SANFLAGS := $(if $(filter 1,$(SAN)),-fsanitize=address$(comma)undefined -fno-omit-frame-pointer -O1 -Wno-format-truncation)
LIB_CFLAGS := $(filter-out -D_FORTIFY_SOURCE=2 -Wdate-time,$(SLEPC_CFLAGS) $(PETSC_CFLAGS) $(HDF5_CFLAGS) $(YAML_CFLAGS) $(BLAS_CFLAGS) $(RANDOM123_CFLAGS))
ALL_CFLAGS := -std=c11 -D_GNU_SOURCE -g $(OPT) -fopenmp-simd -fno-math-errno -ffp-contract=off $(WARN) $(SANFLAGS) \
	-Iinclude $(patsubst -I%,-isystem %,$(LIB_CFLAGS)) $(CFLAGS)
# HDF5's own high-level library holds the dimension scales.
HDF5_HL_LIBS ?= $(subst -lhdf5,-lhdf5_hl -lhdf5,$(HDF5_LIBS))
ALL_LIBS := $(SLEPC_LIBS) $(PETSC_LIBS) $(SCALAPACK_LIBS) $(HDF5_HL_LIBS) $(BLAS_LIBS) $(YAML_LIBS) $(ZLIB_LIBS) -lm -ldl

SOURCES := $(sort $(wildcard src/*/*.c))
OBJECTS := $(patsubst src/%.c,$(BUILD)/obj/%.o,$(SOURCES))
MAIN    := $(BUILD)/obj/app/main.o
LIBRARY := $(filter-out $(MAIN) $(BUILD)/obj/base/build.o,$(OBJECTS))
UNIT    := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/unit/test_*.c)))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/tests/%,$(sort $(wildcard tests/bench/bench_*.c)))

# V=1 shows the commands.
V ?= 0
say = $(if $(filter 1,$(V)),,@echo "  $(1)"; )

# ---------------------------------------------------------------- build
.PHONY: all demo reproduce check check-all bench bench-compare lint format info install clean help unit FORCE
all: $(BUILD)/eigentrain

$(BUILD)/flags: FORCE | $(BUILD)
	@echo '$(MPICC) $(ALL_CFLAGS) $(ALL_LIBS)' | cmp -s - $@ || echo '$(MPICC) $(ALL_CFLAGS) $(ALL_LIBS)' > $@
$(BUILD)/version: FORCE | $(BUILD)
	@v='$(VERSION) '"$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)"; \
	 echo "$$v" | cmp -s - $@ || echo "$$v" > $@

$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags | $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(call say,CC   $<)$(MPICC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@
# Polynomials with fused multiplications where the processor has them.
$(BUILD)/obj/net/activation.o: ALL_CFLAGS += -ffp-contract=fast
# Only this object knows the git hash, so that a commit recompiles one file.
$(BUILD)/obj/base/build.o: src/base/build.c $(BUILD)/version $(BUILD)/flags | $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(call say,CC   $<)$(MPICC) $(ALL_CFLAGS) -DEIGENTRAIN_VERSION='"$(word 1,$(shell cat $(BUILD)/version))"' \
	  -DEIGENTRAIN_GIT='"$(word 2,$(shell cat $(BUILD)/version))"' -DEIGENTRAIN_FLAGS='"$(OPT) $(SANFLAGS) $(CFLAGS)"' \
	  -MMD -MP -c $< -o $@
$(BUILD)/eigentrain: $(OBJECTS)
	$(call say,LINK $@)$(MPICC) $(SANFLAGS) $^ -rdynamic $(ALL_LIBS) -o $@

$(BUILD)/tests/%: tests/unit/%.c $(wildcard tests/unit/*.h) $(LIBRARY) $(BUILD)/obj/base/build.o | $(BUILD)/tests
	$(call say,LINK $@)$(MPICC) $(ALL_CFLAGS) -Itests/unit $< $(LIBRARY) $(BUILD)/obj/base/build.o -rdynamic $(ALL_LIBS) -lcmocka -o $@
$(BUILD)/tests/%: tests/bench/%.c $(LIBRARY) $(BUILD)/obj/base/build.o | $(BUILD)/tests
	$(call say,LINK $@)$(MPICC) $(ALL_CFLAGS) $< $(LIBRARY) $(BUILD)/obj/base/build.o -rdynamic $(ALL_LIBS) -o $@
-include $(OBJECTS:.o=.d)

# ---------------------------------------------------------------- use
demo: $(BUILD)/.packages-demo
	@$(MAKE) --no-print-directory -j$(NPROC) all
	@$(find_python); \
	 $(MPIRUN) -n $(RANKS) $(BUILD)/eigentrain run inputs/quickstart.yaml --out runs/quickstart --overwrite; \
	 $$python postprocess/report.py runs/quickstart

# ONLY="dln_thm hessian": these studies or papers.
reproduce: $(BUILD)/.packages-reproduce
	@$(MAKE) --no-print-directory -j$(NPROC) all
	@$(find_python); \
	 $$python postprocess/reproduce.py --build $(BUILD) --mpirun '$(MPIRUN)' --ranks $(RANKS) $(if $(filter 1,$(FULL)),--full) $(if $(ONLY),--only $(ONLY))

check: $(BUILD)/.packages-check
	@$(MAKE) --no-print-directory -j$(NPROC) all unit
	@$(find_python); $$python tests/run.py --build $(BUILD) --mpirun '$(MPIRUN)'
check-all: $(BUILD)/.packages-check
	@$(MAKE) --no-print-directory -j$(NPROC) all unit
	@$(find_python); $$python tests/run.py --build $(BUILD) --mpirun '$(MPIRUN)' --all
unit: $(UNIT)

bench: $(BUILD)/.packages-bench
	@$(MAKE) --no-print-directory -j$(NPROC) all $(BENCHES)
	@$(find_python); $$python tests/bench/bench.py --build $(BUILD) --mpirun '$(if $(filter 1,$(NPROC)),$(MPIRUN),mpirun)' --studies $(STUDIES)

# `make bench-compare OLD=old.json`, or `make bench-compare old.json`.
OLD ?= $(filter %.json,$(MAKECMDGOALS))
bench-compare:
	@$(find_python); $$python tests/bench/compare.py '$(OLD)' $(BUILD)/bench.json

lint: $(BUILD)/.packages-check
	@$(find_python); $$python tests/lint.py --flags '$(ALL_CFLAGS)'
format:
	clang-format -i $(SOURCES) $(wildcard include/*/*.h tests/unit/*.[ch] tests/bench/*.c)

info: all
	@echo "MPICC      $(MPICC)"; echo "CFLAGS     $(ALL_CFLAGS)"; echo "LIBS       $(ALL_LIBS)"; echo "PYTHON     $(PYTHON)"
	@$(BUILD)/eigentrain info

install: all
	install -D -m 755 $(BUILD)/eigentrain $(DESTDIR)$(PREFIX)/bin/eigentrain
	mkdir -p $(DESTDIR)$(PREFIX)/share/eigentrain
	cp -r inputs jobscripts postprocess $(DESTDIR)$(PREFIX)/share/eigentrain/
	find $(DESTDIR)$(PREFIX)/share/eigentrain -name __pycache__ -prune -exec rm -r {} +

clean:
	rm -rf build
help:
	@sed -n '3,16s/^# \{0,1\}//p' Makefile
