# Everything runs in .venv, which each target makes, completes or renews first where that is needed.

# The Python that .venv is made with; where none is named, the first of these that runs and is 3.11 or newer.
PYTHON ?=
PYTHONS = python3.11 python3.12 python3
# Handed on to the command a target runs: make search ARGS="--trials 50", make test ARGS="-k stats".
ARGS ?=
# Extras of pyproject.toml that `make setup` installs as well: make setup EXTRAS="export tensorboard".
EXTRAS ?=
# How many processes share the tests. Not one for each core: the machine may be shared, and each loads torch.
PYTEST_WORKERS ?= 2

# What `make setup` does with .venv. Its arguments are the extras wanted on top of what the package needs.
#
# .venv/installed tells what stands in .venv: the folder it was made in, its extras, and the checksums of the files it was
# installed from. Modification times alone would miss a checkout of older files; the folder is there because scripts in a
# virtual environment hold its absolute path. .venv/unfinished stands from before an install until after it. An install
# that was cut off can leave packages that look whole and are not, so where it still stands .venv is made anew.
define SETUP
set -eu
here=$$(pwd -P)
sources=$$(cksum pyproject.toml constraints.txt)
place=$$here extras= installed=
if [ -f .venv/installed ]; then
    { IFS= read -r place; IFS= read -r extras; installed=$$(cat); } < .venv/installed || place=unreadable
fi

wanted=$$extras
for extra in "$$@"; do
    case ",$$wanted," in *",$$extra,"*) ;; *) wanted=$${wanted:+$$wanted,}$$extra ;; esac
done

usable() {
    [ ! -e .venv/unfinished ] && [ "$$place" = "$$here" ] && .venv/bin/python -c 'import pip' || return 1
    [ -z "$$PYTHON" ] || [ "$$("$$PYTHON" --version)" = "$$(.venv/bin/python --version)" ]
}

current() {
    [ "$$installed" = "$$sources" ] && [ "$$wanted" = "$$extras" ] || return 1
    [ ! pyproject.toml -nt .venv/installed ] && [ ! constraints.txt -nt .venv/installed ]
}

# The build backend is installed apart from the rest: older versions of pip pin it by the first variable, newer ones by
# the second. Both are relative because pip parts them at spaces.
export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$@" \
        -e ".$${wanted:+[$$wanted]}"
}

if usable 2>/dev/null; then
    if current; then exit 0; fi
    echo "Bringing .venv up to date$${wanted:+ with the extras $$wanted}: seconds, or minutes where large packages changed"
    # Tried without a change first: where that fails, as it does offline, what stands in .venv stays whole.
    install --dry-run
    rm -f .venv/installed
else
    if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; else set -- $(PYTHONS); fi
    tried=$$* python=
    for candidate in "$$@"; do
        # Run, not only looked up: the name may be a shim that knows no such version. And without ensurepip no .venv.
        if "$$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            python=$$candidate
            break
        fi
    done
    if [ -z "$$python" ]; then
        echo "No Python 3.11 or newer that can make a virtual environment (tried: $$tried); name one: make PYTHON=..." >&2
        exit 1
    fi
    echo "Making .venv with $$("$$python" --version): downloads about 3 GB, fills about 6 GB and takes minutes"
    rm -rf .venv
    mkdir .venv
    : > .venv/unfinished
    "$$python" -m venv .venv
fi

: > .venv/unfinished
install
rm .venv/unfinished
printf '%s\n' "$$here" "$$wanted" "$$sources" > .venv/installed
endef
export SETUP PYTHON

.PHONY: help setup setup-docs setup-test setup-lint search studies studies-records docs notebooks test test-slow test-all lint format clean
# Two targets asked for at once must not install into .venv at the same time.
.NOTPARALLEL:

help:
	@echo "make setup    make .venv and install budgetnet, every version pinned; the other targets do so by themselves;"
	@echo "              EXTRAS=\"export figures mlflow postgres quality ray tensorboard\" installs what these need"
	@echo "make search   search for the best network under 5 million parameters; options: ARGS=\"...\""
	@echo "make studies  run the studies that need long training, at the lowest priority; ARGS=\"--status\" shows how far they are"
	@echo "make studies-records  copy the records of finished studies into studies/"
	@echo "make docs     build the documentation into site/, which no network is needed to read"
	@echo "make notebooks  run the notebooks and store their outputs, in minutes; ARGS=NAME runs one"
	@echo "make test     run the tests of the first tier, in minutes; options: ARGS=\"...\", PYTEST_WORKERS=$(PYTEST_WORKERS)"
	@echo "make test-all run all tests; make test-slow: only those that make test leaves out"
	@echo "make lint     check style, types and which module may import which"
	@echo "make format   put the code into the common format"
	@echo "make clean    remove .venv and all caches"
	@echo "PYTHON=...    the Python to make .venv with, 3.11 or newer"

setup:
	@sh -c "$$SETUP" setup $(EXTRAS)

setup-docs:
	@sh -c "$$SETUP" setup docs

setup-test:
	@sh -c "$$SETUP" setup test

# With the tests' packages, since the types of the tests are checked too.
setup-lint:
	@sh -c "$$SETUP" setup test lint

search: setup
	.venv/bin/budgetnet search --max-params 5e6 $(ARGS)

# Runs the studies of studies/order.yaml one after the other, each from where it stopped: days on a CPU. Run again, it goes on.
studies: setup
	.venv/bin/python studies/runner $(ARGS)

studies-records: setup
	.venv/bin/python studies/runner --collect $(ARGS)

# A link that leads nowhere is an error. The theme would announce a coming version of mkdocs, which is not the one pinned.
docs: setup-docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict $(ARGS)

# Figures become pictures, which needs an installed Chromium.
notebooks: setup-test
	.venv/bin/python docs/generators/run_notebooks.py $(ARGS)

# One thread for each worker, so that the workers do not fight over the cores. Bytecode is kept also where the environment
# says otherwise: each worker would compile all tests, and each command that they start the package.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

# The first tier: all but the tests marked slow, and fewer examples of each Hypothesis property.
test: setup-test
	$(PYTEST) -m "not slow" --hypothesis-profile fast $(ARGS)

# The second tier: what the first leaves out. Hypothesis marks its tests by itself.
test-slow: setup-test
	$(PYTEST) -m "slow or hypothesis" $(ARGS)

test-all: setup-test
	$(PYTEST) $(ARGS)

lint: setup-lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

format: setup-lint
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find budgetnet tests docs -name __pycache__ -type d -prune -exec rm -rf {} +
