# Every target that needs the environment sets it up first: .venv, from the locks. The second time that takes no time.
.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-slow coverage wheel soak check pictures log-store house dev serve labelstudio shared bench bench-ingest bench-training bench-serving bench-labeling bench-operate simulate setup lock clean clean-cache changelog

BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
PROCESSES ?= 2
# A process of the tests that crashes ends the run: what waits for one that is begun anew may wait for ever.
# What pytest makes of 200 files of tests is kept for the next run, whatever else is asked of Python here.
unexport PYTHONDONTWRITEBYTECODE
# A path to photos is a shell's variable, as it was given: it may hold any sign, quotes too.
override IMAGES := $(value IMAGES)
override PHOTOS := $(value PHOTOS)
export IMAGES PHOTOS
TESTS = $(BIN)/pytest -n $(PROCESSES) --max-worker-restart=0 $(if $(PHOTOS),--photos="$$PHOTOS")

# PYTHON picks the Python of the environment, TORCH=cpu a torch without CUDA; ENGINE is local or spark, whatever runs.
export PYTHON TORCH
ifdef ENGINE
export DLASSETS_ENGINE := $(ENGINE)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  ENGINE=local|spark, ARGS='...' for further options, PYTHON=/path/to/python3.12 for another Python, TORCH=cpu"

demo: $(READY) ## run the whole loop on sample images, or on IMAGES=<folder, zip or tar>
	$(BIN)/dlassets demo $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

test: $(READY) ## run the fast lane of the tests, in PROCESSES=2; ARGS='<file> -x …' for some, PHOTOS=<folder> for real photos
	$(TESTS) --lane=fast --durations 10 $(ARGS)

test-all: $(READY) ## run every test
	$(TESTS) --durations 20 $(ARGS)

test-slow: $(READY) ## run the other lane, in turns: TURN=<any text> says where to begin, UNTIL=<seconds> when to stop
	$(TESTS) --lane=slow $(if $(TURN),--turn='$(TURN)') $(if $(UNTIL),--until=$(UNTIL)) $(ARGS)

coverage: $(READY) ## run the fast lane, and say which lines and branches it does not reach
	$(TESTS) --lane=fast --cov=dlassets $(ARGS)

wheel: $(READY) ## build dist/*.whl and try it in empty environments; PYTHONS='3.11 3.12 3.13' must then be there
	@scripts/wheel.sh $(PYTHONS)

# files: ingest, ARGS='--seed N' or --spark. lakes: whole lakes, ARGS='--seed N'. stores: their making, ARGS='--kills 300 --openers 100'.
# shared: processes of `dlassets up`, ARGS='--kills 20 --seed N'.
soak: $(READY) ## random operations, faults and kills for SECONDS=600; MODE=files (what is taken in), lakes (all of it), stores, shared
	$(BIN)/python -m dlassets_tests.soak.$(or $(MODE),files) $(if $(filter-out stores shared,$(or $(MODE),files)),--seconds $(or $(SECONDS),600)) $(ARGS)

check: $(READY) ## formatting, lint, types, layers and dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry dlassets
	$(BIN)/deptry dlassets_tests benchmarks scripts --ignore DEP002,DEP004

pictures: $(READY) ## take README's pictures anew, of the default demo, in a Chromium that must be there
	$(BIN)/pytest dlassets_tests/web/test_pages_in_a_browser.py dlassets_tests/labeling/test_label_studio_in_a_browser.py dlassets_tests/web/test_label_in_a_browser.py --pictures docs $(ARGS)

log-store: $(READY) ## compile what commits to S3 on Spark, by a JDK's javac, to the jar beside its source in dlassets/engines
	$(BIN)/python scripts/log_store.py

house: $(READY) ## draw the rooms and who imports whom anew, to docs/house.svg
	$(BIN)/python scripts/house.py

dev: $(READY) ## start the lake's pages and Dagster's and MLflow's user interfaces, and print their addresses
	$(BIN)/dlassets dev $(ARGS)

serve: $(READY) ## answer over HTTP what the champion says of photos, with a page to try one; ARGS='--port 8080'
	$(BIN)/dlassets serve $(ARGS)

labelstudio: .venv-labelstudio/.ready ## install Label Studio, and start one of the lake's own, in which people are asked; ARGS='--port 8080'
	$(BIN)/dlassets labelstudio $(ARGS)

shared: $(READY) .venv-shared/.ready ## start all that a team shares, behind one log-in, until `dlassets down`; ARGS='--engine spark'
	$(BIN)/dlassets up $(ARGS)

bench: $(READY) ## measure speed and accuracy; IMAGES=<folder> for one's own photos
	$(BIN)/python -m benchmarks $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

bench-ingest: $(READY) ## measure taking photos in, beside its peers; IMAGES=<folder>, ARGS='take-in tick …' for parts
	$(BIN)/python -m benchmarks ingest $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

# The parts `head` and `heads` need none of the peers that are installed for it.
bench-training: $(READY) $(if $(filter-out head heads,$(or $(ARGS),all)),.venv-peers/.ready) ## measure training, beside its peers; IMAGES=<folder>, ARGS='loader …' for parts
	$(BIN)/python -m benchmarks training $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

bench-serving: $(READY) .venv-peers/.ready ## measure serving and scoring, beside their peers; IMAGES=<folder>, ARGS='rest …' for parts
	$(BIN)/python -m benchmarks serving $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

bench-labeling: $(READY) .venv-labelstudio/.ready ## measure labelling with a real Label Studio; IMAGES=<folder>
	$(BIN)/python -m benchmarks labeling $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

bench-operate: $(READY) ## measure running a lake, by where it lies and is computed; IMAGES=<folder>, ARGS='launch looks …' for parts
	$(BIN)/python -m benchmarks operate $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

simulate: $(READY) ## play a labelled photo set again: accuracy by answers, for each way to choose; IMAGES=<folder>, ARGS='--plot curve.png'
	$(BIN)/python -m benchmarks simulate $(if $(IMAGES),--images "$$IMAGES") $(ARGS)

setup: $(READY) ## build the environment, .venv

$(READY): requirements.lock requirements-tools.lock pyproject.toml scripts/setup.sh
	@scripts/setup.sh

# Without its peers a benchmark still measures dlassets, and says in its table who was not there.
.venv-peers/.ready: requirements-peers.lock | $(READY)
	@scripts/setup.sh peers || echo "Measuring without the peers."

.venv-labelstudio/.ready: requirements-labelstudio.lock | $(READY)
	@scripts/setup.sh labelstudio

.venv-shared/.ready: deploy/programs/go.mod deploy/programs/go.sum | $(READY)
	@scripts/setup.sh shared

lock: ## resolve pyproject.toml anew into the locks; ARGS=--upgrade for newer releases
	@scripts/setup.sh lock $(ARGS)

clean: ## delete the environments, caches and build output; never a lake, nor what benchmarks found
	rm -rf .venv .venv-peers .venv-labelstudio .venv-shared build dist *.egg-info .coverage* coverage.xml
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf .tmp_dagster_home_* artifacts derby.log metastore_db spark-warehouse
	find . -path ./lake -prune -o -name __pycache__ -prune -exec rm -rf {} +

clean-cache: ## delete what dlassets keeps for all lakes of this machine: compiled networks, Spark's classes and log
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/dlassets"

changelog: $(READY) ## move the fragments in changes/ to CHANGELOG.md, under the version in dlassets/__init__.py
	$(BIN)/towncrier build --yes --version "$$(sed -n 's/^__version__ = "\(.*\)"$$/\1/p' dlassets/__init__.py)"
