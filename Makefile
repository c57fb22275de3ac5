# Every target calls a plain command that works without make, on every system; `make -n TARGET` shows it.

PYTHON ?= python3.11
VENV ?= .venv
VENV_FLAGS ?=
DATA ?=
OUT ?=
MODEL ?=
ATLAS ?=
LABEL ?=
DATASET ?=
NAME ?=
ARGS ?=
SUBJECTS ?=

PY := $(VENV)/bin/python
READY := $(VENV)/.ready
LABEL_VENV := .venv-monailabel
COMPARE_VENV := .venv-compare

# A variable that is typed for a target without use for it is refused; one of the environment may be meant for another.
only = $(foreach given,$(filter-out $1 ARGS,DATA OUT MODEL ATLAS LABEL DATASET NAME SUBJECTS),$(if $(and $($(given)),$(filter command,$(origin $(given)))),$(error make $@ does not use $(given)=: it takes $1 ARGS)))

.PHONY: help setup phantoms pretrain report probe carry child zoo evidence benchmark compare documents lint format clean
.PHONY: test test-fast test-process test-release test-monailabel test-compare test-zoo

help:  ## list the commands
	@echo "usage: make TARGET [DATA=folder] [OUT=folder] [ARGS='--id value ...'], where TARGET is one of:"
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make the virtual environment (keep your own torch: VENV_FLAGS=--system-site-packages)

# A torch that is there already stays: its pin is left out then. nnU-Net's networks are installed without what only
# those of them need that are not used here.
$(READY): constraints.txt pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	if $(PY) -c "import torch" 2>/dev/null; then grep -v '^torch==' constraints.txt; else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(PY) -m pip install --quiet --constraint $(VENV)/constraints.txt ".[dev]"
	$(PY) -m pip install --quiet --no-deps --constraint $(VENV)/constraints.txt dynamic_network_architectures
	touch $@

phantoms: $(READY)  ## make the built-in phantom cohort (SUBJECTS=12) in data/phantoms, or OUT=<folder>
	$(call only,OUT SUBJECTS)
	$(PY) tools/gvsl.py phantoms $(if $(SUBJECTS),--subjects $(SUBJECTS)) $(if $(OUT),--out "$(OUT)") $(ARGS)

pretrain: $(READY)  ## pre-train: on phantoms, or DATA=<folder of scans> OUT=<folder> MODEL=<model.pt to start from> ARGS='--epochs 50 --memory 8 ...'
	$(call only,DATA OUT MODEL SUBJECTS)
	$(PY) tools/gvsl.py pretrain $(if $(SUBJECTS),--subjects $(SUBJECTS)) $(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)") $(if $(OUT),--out "$(OUT)") $(ARGS)

report: $(READY)  ## one HTML page about a model: MODEL=<model.pt> DATA=<folder of scans> OUT=<folder>
	$(call only,MODEL DATA OUT)
	$(if $(MODEL),,$(error make report needs MODEL=<the model.pt of a training run>))
	$(if $(DATA),,$(error make report needs DATA=<the folder of scans to measure on>))
	$(PY) tools/gvsl.py report --model "$(MODEL)" --data "$(DATA)" $(if $(OUT),--out "$(OUT)") $(ARGS)

probe: $(READY)  ## will a model help on your data? a page with a verdict: DATA=<5 or more labelled scans> MODEL=<model.pt> OUT=<folder>
	$(call only,DATA MODEL OUT)
	$(if $(DATA),,$(error make probe needs DATA=<a folder of 5 or more labelled scans, with dataset.json>))
	$(PY) tools/gvsl.py probe --data "$(DATA)" $(if $(MODEL),--model "$(MODEL)") $(if $(OUT),--out "$(OUT)") $(ARGS)

carry: $(READY)  ## labels from a labelled scan: ATLAS=<scan> LABEL=<its label map> DATA=<folder of scans> OUT=<folder>
	$(call only,ATLAS LABEL DATA MODEL OUT)
	$(if $(ATLAS),,$(error make carry needs ATLAS=<a labelled scan, or a folder of them>))
	$(if $(LABEL),,$(error make carry needs LABEL=<the label map of ATLAS, or a folder of them>))
	$(if $(DATA),,$(error make carry needs DATA=<the folder of scans that need labels>))
	$(PY) tools/gvsl.py carry --atlas "$(ATLAS)" --label "$(LABEL)" --data "$(DATA)" $(if $(MODEL),--model "$(MODEL)") $(if $(OUT),--out "$(OUT)") $(ARGS)

child: $(READY)  ## a child bundle for your data: DATASET=<folder with dataset.json> NAME=<organ>_<modality>_<task> MODEL=<pre-trained model.pt>
	$(call only,DATASET NAME OUT MODEL)
	$(if $(DATASET),,$(error make child needs DATASET=<a folder with dataset.json>))
	$(if $(NAME),,$(error make child needs NAME=<organ>_<modality>_segmentation or ..._classification))
	$(PY) tools/gvsl.py child --dataset "$(DATASET)" --name "$(NAME)" $(if $(OUT),--out "$(OUT)") $(if $(MODEL),--model "$(MODEL)") $(ARGS)

zoo: $(READY)  ## make the packages of a model zoo, parent and children, in dist
	$(call only,OUT)
	$(PY) tools/gvsl.py zoo $(if $(OUT),--out "$(OUT)") $(ARGS)

benchmark: $(READY)  ## how fast is a step, against the limit and the published one: OUT=<folder> ARGS='--growth'
	$(call only,OUT)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) benchmarks/benchmark.py "$(or $(OUT),runs/benchmark)" $(ARGS)

evidence: $(READY)  ## compare the arms of benchmarks/evidence.json: DATA=<folder of the sets> OUT=<folder> ARGS='--arms ...'
	$(call only,DATA OUT)
	$(if $(DATA),,$(error make evidence needs DATA=<the folder that holds the sets>))
	$(PY) benchmarks/run_evidence.py --data "$(DATA)" --out "$(or $(OUT),runs/evidence)" $(ARGS)

documents: $(READY)  ## tables and pictures of the documents, anew from the results: DATA=<folder of the sets>
	$(call only,DATA)
	$(PY) benchmarks/documents.py $(if $(DATA),--data "$(DATA)") $(ARGS)

compare: $(COMPARE_VENV)/.ready  ## the matching beside greedy, ANTs, ConvexAdam: DATA=<labelled folder> OUT=<folder> MODEL=<model.pt> ARGS='--pairs 10 ...'
	$(call only,DATA OUT MODEL)
	$(if $(DATA),,$(error make compare needs DATA=<a folder of labelled scans with a dataset.json>))
	OMP_NUM_THREADS=1 $(COMPARE_VENV)/bin/python benchmarks/compare.py --data "$(DATA)" --out "$(or $(OUT),runs/compare)" $(if $(MODEL),--model "$(MODEL)") $(ARGS)

$(COMPARE_VENV)/.ready: constraints-compare.txt pyproject.toml
	test -x $(COMPARE_VENV)/bin/python || $(PYTHON) -m venv $(COMPARE_VENV)
	$(COMPARE_VENV)/bin/python -m pip install --quiet --constraint constraints-compare.txt ".[compare]"
	touch $@

test: $(READY)  ## run the whole test suite
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 $(ARGS)

test-fast: $(READY)  ## run the tests of the parts (tiers: see pyproject.toml)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 -m fast $(ARGS)

test-process: $(READY)  ## run the tests of whole commands
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 -m process $(ARGS)

test-release: test-monailabel test-compare test-zoo  ## run the tests of what is handed over, in environments of their own

test-monailabel: $(READY) $(LABEL_VENV)/.ready  ## run the tests with a real MONAI Label server
	OMP_NUM_THREADS=1 GVSL_MONAILABEL=$(LABEL_VENV)/bin/python $(PY) -m pytest -q tests/monailabel $(ARGS)

# MONAI Label itself is installed without its dependencies: some of them exclude each other.
$(LABEL_VENV)/.ready: constraints-monailabel.txt tests/monailabel/requirements.txt
	test -x $(LABEL_VENV)/bin/python || $(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_VENV)/bin/python -m pip install --quiet --constraint constraints-monailabel.txt \
		--requirement tests/monailabel/requirements.txt
	$(LABEL_VENV)/bin/python -m pip install --quiet --no-deps --constraint constraints-monailabel.txt \
		monailabel itk-core itk-numerics itk-io
	touch $@

test-compare: $(READY) $(COMPARE_VENV)/.ready  ## run the tests of the other registrations that make compare runs
	OMP_NUM_THREADS=1 GVSL_COMPARE=$(CURDIR)/$(COMPARE_VENV)/bin/python $(PY) -m pytest -q tests/integration/test_comparison_methods.py $(ARGS)

test-zoo: $(READY)  ## run the tests of the packages in environments that hold nothing but what a package lists
	OMP_NUM_THREADS=1 GVSL_FRESH=1 $(PY) -m pytest -q tests/integration/test_zoo_package.py $(ARGS)

lint: $(READY)  ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy bundle/scripts
	$(PY) -m mypy tools
	$(PY) -m mypy benchmarks

format: $(READY)  ## format the code
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

clean:  ## remove the virtual environment and everything made
	rm -rf $(VENV) $(LABEL_VENV) $(COMPARE_VENV) data runs dist build *.egg-info
