# Two commands do everything on a fresh machine: make say TEXT="..." and make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
, := ,
TEXT ?= The quick brown fox jumps over the lazy dog.
OUT ?= out/speech.wav

.PHONY: say serve test test-busy cover test-native stress test-slow test-clients test-gpu bench-gpu check format bench docs clean setup nano-smoke nano-judge

# What speaking needs, what the server adds, and the tools of the tests: each is installed when it is first asked for.
SPEAK := $(VENV)/.speaks
SERVE := $(VENV)/.serves
STAMP := $(VENV)/.installed

setup: $(STAMP)

# $(1): what it is for and how large; $(2): what to install. pip shows each download with its size.
# torch is named with its exact version first: a bare requirement could bring gigabytes of CUDA.
define install
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing $(1)."
	@began=$$(date +%s); pip="$(BIN)/python -m pip install --disable-pip-version-check"; \
	  { $$pip "$$(grep -E '^torch==' constraints.txt)" && $$pip -c constraints.txt -e '$(2)'; } \
	  | grep -v -e '^Requirement already' -e '^  Preparing' -e '^  Getting' -e '^  Installing build'; \
	  test $${PIPESTATUS[0]} -eq 0 \
	  && echo "Installed in $$(( $$(date +%s) - began )) s; $(VENV) takes $$(du -sh $(VENV) | cut -f 1)."
	@touch $@
endef
$(SPEAK) $(SERVE) $(STAMP): SHELL := bash
$(SPEAK): pyproject.toml constraints.txt
	$(call install,what speaking needs: about 420 MB to download and 1.5 GB on disk$(,) more where torch brings CUDA,.)
$(SERVE): $(SPEAK)
	$(call install,the server: about 10 MB more,.[server])
$(STAMP): pyproject.toml constraints.txt
	$(call install,what the tests need too: about 600 MB to download and 2.2 GB on disk,.[server$(,)books$(,)dev])

# $(value ...): a dollar in the text is a dollar.
say: $(SPEAK)
	@mkdir -p $(dir $(OUT))
	@$(BIN)/sonant say "$$SONANT_TEXT" $(if $(MODEL),--model $(MODEL)) -o $(OUT)
say: export SONANT_TEXT = $(value TEXT)

serve: $(SERVE)
	$(BIN)/sonant serve

QUICK := -m "not slow and not gpu and not weights"
test: setup
	$(BIN)/python -m pytest -n 2 $(QUICK)

# The same in a random order, which SEED says, beside two busy loops: no test may need an order or a quick machine.
SEED ?= 1
test-busy: setup
	busy=; trap 'kill $$busy' EXIT; trap 'exit 130' INT TERM; \
	  for n in 1 2; do $(BIN)/python -c "while True: pass" & busy="$$busy $$!"; done; \
	  $(BIN)/python -m pytest -n 2 $(QUICK) --random-order --random-order-seed=$(SEED)

# The same, with the share of lines that ran; counting them costs a quarter of the time.
cover: setup
	$(BIN)/python -m pytest -n 2 $(QUICK) --cov --cov-report=term --cov-fail-under=85

# The C kernels' own tests, under the address and the undefined-behaviour sanitizer: plain C, then all this machine has.
SANITIZE := -O1 -g -std=gnu11 -fopenmp -fsanitize=address,undefined -fno-sanitize-recover=all -Wall -Wno-psabi
test-native:
ifeq ($(shell uname -s),Linux)
	@mkdir -p build/native
	set -e; for flags in "" $(if $(filter x86_64 aarch64 arm64,$(shell uname -m)),-march=native); do \
	  $(CC) $(SANITIZE) $$flags -Isrc/sonant/native -Wl,--wrap=malloc,--wrap=calloc -o build/native/kernels \
	    tests/native/kernels.c src/sonant/native/*.c -lm; \
	  OMP_NUM_THREADS=2 build/native/kernels; \
	done
else
	@echo "the kernels' tests need GNU's linker and both sanitizers: run them on Linux"
endif

# The engine's stress test with many more streams, by another seed each time, and its figures: some five minutes.
STREAMS ?= 1500
stress: SEED := $(shell date +%s)
stress: setup
	SONANT_STRESS_STREAMS=$(STREAMS) SONANT_STRESS_SEED=$(SEED) $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/engine/test_stress.py

test-slow: setup
	$(BIN)/python -m pytest -m "slow and not gpu and not weights"

# Real client packages through a real server, in an environment of their own; docs/clients.md is their table.
CLIENTS := .clients
test-clients: setup
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check -r clients/requirements.txt
	cp clients/package.json $(CLIENTS)/ && cd $(CLIENTS) && npm install --no-audit --no-fund --ignore-scripts
	SONANT_PYTHON=$(CURDIR)/$(BIN)/python CLIENTS_NODE=$(CURDIR)/$(CLIENTS) NO_PROXY=127.0.0.1 \
	  $(CLIENTS)/bin/python -m pytest -q -c /dev/null --rootdir clients -p no:cacheprovider clients/test_clients.py

# On a machine with a CUDA device; torch has to be a CUDA build.
test-gpu: setup
	$(BIN)/python -m pytest -m "gpu and not weights"

bench-gpu: setup
	$(BIN)/sonant bench qwen3-tts-0.6b --device cuda --dtype bfloat16 --batch 1 --batch 8 --batch 32
	$(BIN)/sonant bench cosyvoice3-0.5b --device cuda --batch 1 --batch 8
	$(BIN)/sonant bench indextts2 --device cuda --batch 1

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_imports.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The whole training recipe of Sonant Nano on a toy scale, as a test: two minutes.
nano-smoke: setup
	$(BIN)/python -m pytest -q -m slow tests/recipes/test_nano_smoke.py

# Judge the shipped nano checkpoint on the held-out sentences; the audio lands in out/nano-judge.
nano-judge: setup
	PYTHONPATH=. $(BIN)/python -m recipes.nano judge --model src/sonant/assets/nano --work out/nano-judge

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(CLIENTS) out build dist
