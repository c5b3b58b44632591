# Everything runs in .venv, made on first use from pyproject.toml and constraints.txt and quick the second time.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo study-small test check fuzz clean
help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt setup.py $(wildcard src/attar/c/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## the main job on real data: train, distil, prune, quantize, pack, verify, measure, report
	rm -rf runs/demo
	$(BIN)/attar run examples/demo.yaml --out runs/demo
	$(BIN)/attar compress examples/digits.py:DigitNet --arg width=64 -d digits --max-drop 1 --time 2m \
	  --weights runs/demo/state/seed-0/teacher/0-train/epoch-000015.safetensors --output runs/demo/front

study-small: $(READY)  ## the methods of studies/polino2018 on a few images of CIFAR-10 (ATTAR_DATA)
	rm -rf runs/polino2018-small
	$(BIN)/attar run studies/polino2018/small.yaml --out runs/polino2018-small

# Tests start processes by the dozen: they read the bytecode that the first has left, also where it is not wanted else.
test: $(READY)  ## every test, in parallel
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

check: $(READY)  ## style, strict types, layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(READY)  ## 100,000 mutated files, re-sealed, and 1,000,000 streams and 100,000 files under the sanitizers of the C compiler (minutes)
	$(BIN)/python -m tests.attacks.fuzz --cases 100000
	$(BIN)/python -m tests.attacks.fuzz_streams --cases 1000000
	$(BIN)/python -m tests.device.fuzz_device --cases 100000

clean:  ## forget the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist src/*.egg-info
