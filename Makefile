# One obvious command each. `make demo` and `make test` set up everything from nothing.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
AGENTS := .agents
OPINIONS := .opinions

BENCH_PARTS := chaos_breakers chaos_schedule chaos_traffic chaos_verdict exchange load noting_provider peer_programs programs tool_server upstream
BENCHMARKS := $(filter-out $(BENCH_PARTS:%=bench/%.py) bench/chaos.py bench/peers.py,$(wildcard bench/*.py))

.PHONY: lock demo test test-agents test-opinions chaos check format bench peers bench-peers
demo: $(VENV)/ready
	$(BIN)/holdfast demo
test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2
test-agents: $(VENV)/ready
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(AGENTS)/ready && $(BIN)/python -m pytest -m agents -rs tests/agents; \
	else echo "test-agents: skipped: npm, which installs the agents, is not here"; fi
test-opinions: $(VENV)/ready
	@if $(MAKE) --no-print-directory $(OPINIONS)/ready; then $(BIN)/python -m pytest -m opinions -rs tests/gateway/test_second_opinion.py; \
	else echo "test-opinions: skipped: LiteLLM, the other translator, could not be installed"; fi
# Every failure of the simulated provider under mixed traffic; the whole proof: make chaos MINUTES=30
MINUTES ?= 1
chaos: $(VENV)/ready
	$(BIN)/python bench/chaos.py --minutes $(MINUTES)
check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
bench: $(VENV)/ready
	@for program in $(BENCHMARKS); do echo "$$program"; $(BIN)/python $$program || exit 1; done
bench-peers: peers
	$(BIN)/python bench/peers.py
# Other gateways to measure beside Holdfast: nginx and HAProxy where apt-get may install them, the rest apart under .peers/
peers: $(VENV)/ready
	@for program in nginx haproxy; do command -v $$program >/dev/null || test -x /usr/sbin/$$program || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	apt-get update -qq && apt-get install -qq --yes --no-install-recommends $$missing || true; fi
	$(BIN)/python bench/peer_programs.py
format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet --group dev --extra fast --extra postgres pyproject.toml -o requirements-dev.lock

$(VENV)/ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(AGENTS)/ready: tests/agents/package.json
	rm -rf $(AGENTS)
	mkdir $(AGENTS)
	cp tests/agents/package.json $(AGENTS)/
	npm install --prefix $(AGENTS) --no-package-lock --no-audit --no-fund --loglevel=error
	touch $@

# Another translator between wire formats; apart, since its dependencies would bind ours.
$(OPINIONS)/ready: tests/gateway/second_opinion.txt
	rm -rf $(OPINIONS)
	$(PYTHON) -m venv $(OPINIONS)
	$(OPINIONS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/gateway/second_opinion.txt
	touch $@
