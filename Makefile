# medqa: every step of the pipeline. `make` alone prints this list.
#
#   RECIPE=chatglm3-6b   or tiny: the folder under configs/ that all of them use
#   METHOD=lora_sft      the YAML in it that train, preflight and budget use: qlora_sft, dpo, ...
#   DATA=huatuo          the YAML under configs/data/ that `make data` converts and data-preview shows
#   HUB=huggingface      or modelscope: where model and data come from
#   ARGS="key=value"     overrides for preflight, budget, train, export, compare and evaluate
#   GPU=24               of budget: the card's memory in GiB
#   OVERWRITE=1          replace a result that was made from other inputs
#   HOST=127.0.0.1 PORT=7860   of the web UI; ROOT_PATH=/proxy/6006 behind a reverse proxy

RECIPE ?= chatglm3-6b
METHOD ?= lora_sft
DATA ?= huatuo
HUB ?= huggingface
# Not ?=: some shells export HOST, the machine's own name.
HOST = 127.0.0.1
PORT ?= 7860
ROOT_PATH ?=
GPU ?= 24
VENV ?= .venv

PY := $(VENV)/bin/python
RUN := $(PY) scripts/
FLAGS := $(if $(OVERWRITE),--overwrite)
ARGS ?=
INSTALLED := $(VENV)/.installed
# The first Python from 3.11 to 3.13 on the PATH.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell \
	$(p) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) and print("$(p)")' 2>/dev/null)))

.DEFAULT_GOAL := help
.PHONY: help install browser demo test lint format model data data-preview budget preflight train export compare evaluate publish serve chat webui clean

help: ## print this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@printf '\n'; sed -n 's/^#   /  /p' Makefile

install: $(INSTALLED) ## create .venv and install everything into it

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: expected Python 3.11 to 3.13 on the PATH, found none; install one, or give PYTHON=/path/to/python3"; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || test -x $(VENV)/bin/uv || $(VENV)/bin/pip install --quiet uv
	PATH="$$PATH:$(CURDIR)/$(VENV)/bin" uv pip install --quiet --compile-bytecode --python $(PY) --constraints constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## the whole path on a tiny ChatGLM3, on a CPU, in minutes
	@$(RUN)make_tiny.py configs/tiny/make_tiny.yaml --overwrite
	@$(RUN)import_model.py models/tiny-original models/tiny --overwrite
	@$(RUN)convert.py configs/data/sample.yaml --overwrite
	@$(RUN)train.py configs/tiny/lora_sft.yaml --overwrite
	@$(RUN)compare.py configs/tiny/compare.yaml --overwrite
	@$(RUN)export.py configs/tiny/export.yaml --overwrite

test: $(INSTALLED) lint browser ## lint, types, import contracts and all tests
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

browser: $(INSTALLED) ## a Chromium for the tests of the pages, where there is none
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null; \
	else $(VENV)/bin/playwright install chromium; \
	fi || echo "no Chromium could be installed: the tests of the pages will be skipped"

lint: $(INSTALLED) ## the quick checks alone
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(INSTALLED) ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

model: $(INSTALLED) ## download ChatGLM3-6B and import it as native GLM
	@$(RUN)download.py model --hub $(HUB)
	@# bfloat16, in which it trains: of float16 weights autograd would keep a second copy, 12 GiB.
	@$(RUN)import_model.py models/chatglm3-6b-original models/chatglm3-6b --dtype bfloat16 $(FLAGS)

data: $(INSTALLED) ## download Huatuo-26M and convert it
	@$(RUN)download.py data --hub $(HUB)
	@$(RUN)convert.py configs/data/$(DATA).yaml $(FLAGS)

data-preview: $(INSTALLED) ## print ten training rows of DATA as the model will see them
	@$(RUN)preview_data.py configs/data/$(DATA).yaml

budget: $(INSTALLED) ## memory and time that METHOD will take, and the fastest setting that fits
	@$(RUN)budget.py configs/$(RECIPE)/$(METHOD).yaml --gpu-memory $(GPU) $(ARGS)

preflight: $(INSTALLED) ## look at model, data, template, card and disk without training
	@$(RUN)preflight.py configs/$(RECIPE)/$(METHOD).yaml $(ARGS)

train: $(INSTALLED) ## train RECIPE by METHOD, LoRA SFT if none is given; looks first, goes on after a kill
	@$(RUN)train.py configs/$(RECIPE)/$(METHOD).yaml $(ARGS) $(FLAGS)

export: $(INSTALLED) ## merge RECIPE's adapter into its base model
	@$(RUN)export.py configs/$(RECIPE)/export.yaml $(ARGS) $(FLAGS)

compare: $(INSTALLED) ## base and tuned answers side by side, and a report
	@$(RUN)compare.py configs/$(RECIPE)/compare.yaml $(ARGS) $(FLAGS)

evaluate: $(INSTALLED) ## medical examinations of RECIPE, base and tuned
	@$(RUN)evaluate.py configs/$(RECIPE)/evaluate.yaml --hub $(HUB) $(ARGS) $(FLAGS)

publish: $(INSTALLED) ## quantize, convert to GGUF or push RECIPE's export, as its publish.yaml says
	@$(RUN)publish.py configs/$(RECIPE)/publish.yaml $(ARGS) $(FLAGS)

serve: $(INSTALLED) ## RECIPE behind an OpenAI-compatible API
	@$(RUN)serve.py configs/$(RECIPE)/serve.yaml $(ARGS)

chat: $(INSTALLED) ## ask RECIPE in the browser: base, tuned, or side by side
	@$(RUN)serve.py configs/$(RECIPE)/serve.yaml page=true $(ARGS)

webui: $(INSTALLED) ## LlamaBoard in the browser, pre-filled
	@$(RUN)webui.py --host $(HOST) --port $(PORT) $(if $(ROOT_PATH),--root-path $(ROOT_PATH))

clean: ## remove what the demo made
	rm -rf models/tiny-original models/tiny models/tiny-med models/tiny-med-* saves/tiny outputs/compare/tiny outputs/compare/.tiny.journal outputs/evaluate/tiny outputs/evaluate/.tiny.journal data/processed/sample
