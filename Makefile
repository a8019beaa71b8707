# Everything runs in .venv, which is made when it is first needed.

PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses logical --dist loadfile  # a process for each core
NPM := $(CURDIR)/.venv/npm/node_modules/.bin

.PHONY: chat test clients soak fuzz schemathesis kernels install-20b parity lint bench clean

chat: .venv/installed  ## talk to the embedded demo model
	$(BIN)/gptoss-mlx chat --model demo

test: .venv/test  ## the tests that need neither torch nor the network
	$(BIN)/python -m pytest -m "not parity and not clients" $(PARALLEL)

clients: .venv/clients .venv/npm  ## Codex, Claude Code, LangChain and others against a server here; needs npm
	GPTOSS_MLX_CODEX=$(NPM)/codex GPTOSS_MLX_CLAUDE=$(NPM)/claude \
	  $(BIN)/python -m pytest tests/clients $(PARALLEL)

soak: .venv/test  ## 500 requests against an engine that fails at random: a few minutes
	$(BIN)/python -m pytest -q -s tests/soak.py

fuzz: .venv/test  ## 200,000 random completions through the harmony parser: a minute
	GPTOSS_MLX_FUZZ=200000 $(BIN)/python -m pytest -q tests/harmony/test_fuzz.py

schemathesis: .venv/test  ## thousands of made-up requests to every route: ten minutes
	GPTOSS_MLX_EXAMPLES=200 $(BIN)/python -m pytest -q -m slow tests/server/test_openapi.py

kernels: .venv/test  ## the Metal kernels at full size, on the CPU: an hour or two, and a table
	$(BIN)/python -m pytest -q -s tests/metal/full_size.py

install-20b: .venv/test  ## a whole random 20b from a Hub here, killed and gone on with: 40 GB of disk
	$(BIN)/python -m pytest -q -s tests/hub/full_size.py

parity: .venv/parity  ## the live comparison with OpenAI's torch reference and transformers
	$(BIN)/python -m pytest tests/parity

lint: .venv/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/installed  ## how fast the embedded demo is here
	$(BIN)/gptoss-mlx bench demo

clean:
	rm -rf .venv build dist *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/test: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/clients: .venv/test
	$(BIN)/python -m pip install --quiet --editable ".[clients]"
	touch $@

.venv/npm: .venv/installed
	npm install --silent --prefix $@ @openai/codex@0.169.0 @anthropic-ai/claude-code@2.1.330
	touch $@

.venv/lint: .venv/clients  # pyright reads the tests, too
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	touch $@

.venv/parity: .venv/test
	$(BIN)/python -m pip install --quiet --editable ".[parity]"
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python gpt-oss==0.0.9
	touch $@
