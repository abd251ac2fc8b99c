# On a machine without a ROS installation. On a robot: colcon build (README).
PYTHON ?= python3
RUN := .venv/bin/python -m
PYTEST ?=

# nothing leaves this machine; message fields are checked for their types
export ROS_AUTOMATIC_DISCOVERY_RANGE := LOCALHOST
export ROS_PYTHON_CHECK_FIELDS := 1
# byte code is written at the first import; else every process compiles torch anew, for 4 seconds
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lint test demo bench docs clean

help:
	@echo "make setup   the virtual environment .venv with everything in it, weights in the user's cache (4 minutes once)"
	@echo "make demo    set-up, then from videos to a running node, with images"
	@echo "make test    set-up, lint, all tests, coverage (PYTEST='-k name' for some)"
	@echo "make bench   set-up, then all figures of speed, as a table and as benchmarks/out.json"
	@echo "make docs    set-up, then the pages of docs/ into build/site (mkdocs in an environment of its own)"
	@echo "make lint    set-up, ruff, mypy and the measures of the house"
	@echo "make clean   delete what builds and tests left behind; .venv and the weights stay"

setup:
	@$(PYTHON) tools/setup_venv.py

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	.venv/bin/python tools/house.py
# 2: mypy gives up where a worker starts in more than 3 s, as on a busy machine; one process then
	$(RUN) mypy --num-workers 2 || { test $$? -eq 2 && $(RUN) mypy; }

test: lint
	$(RUN) pytest -n 2 --max-worker-restart=0 --dist loadfile --no-loadscope-reorder --cov=uns_pose_ros --cov-report=term:skip-covered $(PYTEST)

demo: setup
	.venv/bin/python demo/run_demo.py

bench: setup
	.venv/bin/python benchmarks

docs: setup build/docs/done
	.venv/bin/python tools/draw_architecture.py
	NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --quiet --strict
	@echo "build/site/index.html"

build/docs/done: requirements/docs.txt
	$(PYTHON) -m venv build/docs
	build/docs/bin/pip install --disable-pip-version-check --quiet --requirement requirements/docs.txt
	touch $@

clean:
	rm -rf build install log demo/out demo/report.html *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
