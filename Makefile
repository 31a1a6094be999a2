# DATA, WEIGHTS, RUNS and RUN are not named here on purpose: from the environment or the command line they reach the
# programs as they are, while make would expand a $ in them.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
PY = .venv/bin/python
INSTALLED = .venv/installed-$(notdir $(CONSTRAINTS))

.PHONY: report test torture publish crossval ablation backbone growth notebooks bench clean
report: $(INSTALLED) ## run the notebooks over DATA, into RUNS
	@$(PY) -m helpers.report
test: $(INSTALLED) ## all tests, the notebooks among them, on the drawn sample
	@$(PY) -m pytest --numprocesses 2 --dist loadfile
torture: $(INSTALLED) ## the tests that take longer than the rest together: each step killed twenty times, say
	@$(PY) -m pytest -m torture -s tests
publish: $(INSTALLED) ## put the results of run RUN into imgs/, the README and the stored notebooks
	@$(PY) -m helpers.report publish
crossval: $(INSTALLED) ## all actors in turn, the fine-tuned AlexNet too, over DATA, into data/crossval.csv: long
	@$(PY) -m helpers.crossval
ablation: $(INSTALLED) ## what each part of the better AlexNet brings, over DATA, into data/ablation.csv: hours
	@$(PY) -m helpers.experiments
backbone: $(INSTALLED) ## fine-tune another network of torchvision, BACKBONE=resnet18, after make report: long
	@BACKBONE="$${BACKBONE:-resnet18}" $(PY) -m helpers.finetune
growth: $(INSTALLED) ## what 1, 4, 16 and 64 times the sample cost, into data/growth.csv and the README: half an hour
	@$(PY) -m tests.benchmarks.growth
notebooks: $(INSTALLED) ## step through them in JupyterLab
	@$(PY) -m jupyterlab notebooks
bench: $(INSTALLED) ## speed, measured: tables of ratios
	@$(PY) -m tests.benchmarks.frames
	@$(PY) -m tests.benchmarks.training
	@$(PY) -m tests.benchmarks.rekognition
clean: ## remove the environment and the sample's run; runs over your own clips stay
	rm -rf .venv data/runs/sample

$(INSTALLED): requirements.txt requirements-cluster.txt $(CONSTRAINTS)
	@command -v '$(PYTHON)' >/dev/null || { echo "There is no $(PYTHON) here: install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=python3.12"; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "$(PYTHON) is $$('$(PYTHON)' -V 2>&1), and 3.11, 3.12 or 3.13 is needed: name one, as in make PYTHON=python3.12"; exit 1; }
	@rm -rf .venv && '$(PYTHON)' -m venv .venv >/dev/null || { echo "$(PYTHON) cannot make a virtual environment: install its venv module (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "Installing the environment into .venv (once; with PyTorch 6 GB on Linux) …"
	@$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt -r requirements-cluster.txt -c $(CONSTRAINTS)
	@$(PY) -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1 || true # in parallel, where pip compiles one file after another
	@touch $@
