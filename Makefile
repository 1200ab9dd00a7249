# Every target that needs the environment sets it up first: .venv, from the locks. The second time that takes no time.
.DEFAULT_GOAL := help
.PHONY: help demo test soak check house dev bench bench-ingest bench-training setup lock clean

BIN := .venv/bin
READY := .venv/.ready
ARGS ?=

# PYTHON picks the Python of the environment; ENGINE is local or spark, whatever runs.
export PYTHON
ifdef ENGINE
export DLASSETS_ENGINE := $(ENGINE)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ENGINE=local|spark, ARGS='...' for further options, PYTHON=/path/to/python3.12 for another Python"

demo: $(READY) ## run the whole loop on sample images, or on IMAGES=<folder, zip or tar>
	$(BIN)/dlassets demo $(if $(IMAGES),--images '$(IMAGES)') $(ARGS)

test: $(READY) ## run the tests with coverage; PHOTOS=<folder> adds the accuracy on real photos
	$(BIN)/pytest --cov $(if $(PHOTOS),--photos='$(PHOTOS)') $(ARGS)

soak: $(READY) ## take in files under random operations and faults; SECONDS=600, ARGS='--seed N' or --spark
	$(BIN)/python -m dlassets_tests.soak --seconds $(or $(SECONDS),600) $(ARGS)

check: $(READY) ## formatting, lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

house: $(READY) ## draw the rooms and who imports whom anew, to docs/house.svg
	$(BIN)/python scripts/house.py

dev: $(READY) ## start Dagster's and MLflow's user interfaces and print their addresses
	$(BIN)/dlassets dev $(ARGS)

bench: $(READY) ## measure speed and accuracy; IMAGES=<folder> for one's own photos
	$(BIN)/python -m benchmarks $(if $(IMAGES),--images '$(IMAGES)') $(ARGS)

bench-ingest: $(READY) ## measure taking photos in, beside its peers; IMAGES=<folder>, ARGS='take-in tick …' for parts
	$(BIN)/python -m benchmarks ingest $(if $(IMAGES),--images '$(IMAGES)') $(ARGS)

# The part `head` has no peer.
bench-training: $(READY) $(if $(filter-out head,$(or $(ARGS),all)),.venv-peers/.ready) ## measure training, beside its peers; IMAGES=<folder>, ARGS='loader …' for parts
	$(BIN)/python -m benchmarks training $(if $(IMAGES),--images '$(IMAGES)') $(ARGS)

setup: $(READY) ## build the environment, .venv

$(READY): requirements.lock requirements-tools.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh

# Without its peers a benchmark still measures dlassets, and says in its table who was not there.
.venv-peers/.ready: requirements-peers.lock | $(READY)
	@scripts/setup.sh peers || echo "Measuring without the peers."

lock: ## resolve pyproject.toml anew into the locks; ARGS=--upgrade for newer releases
	@scripts/setup.sh lock $(ARGS)

clean: ## delete the environment, caches and build output; never the lake
	rm -rf .venv .venv-peers build dist *.egg-info .coverage coverage.xml .mypy_cache .pytest_cache .ruff_cache
