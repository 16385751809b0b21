"""Every command and program that README and documentation show, run page by page, in their order.

Each page is entered in a shell as by a reader, which is slow. Pages that a newcomer reads first also run in processes
forked from one that has loaded torch, and of every page the names of commands and options are looked up.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documented_support import COMMAND, NOT_RUN, PAGES, ROOT, Block, Command, blocks_of, commands_of, name_of
from PIL import Image
from process_support import AVAILABLE, ForkedProcess, command_line, python_file
from sklearn.datasets import load_digits
from typer.main import get_command

from budgetnet.cli.main import _UsageError as USAGE_ERROR
from budgetnet.cli.main import app
from budgetnet.common.documents import Document
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.recipe import Recipe
from budgetnet.study.space import SearchSpace

LEFT_OUT = {
    "make": "installs packages, and is itself what runs the tests",
    ". .venv/bin/activate": "the tests run in an environment that is there",
    "budgetnet dashboard": "serves until it is interrupted",
    "budgetnet reproduce reference --seeds 3": "needs original CIFAR-10 and a GPU",
    "budgetnet search --data cifar10 --epochs 30 --trials 20": "downloads CIFAR-10",
    "budgetnet search --data cifar10:/data/cifar10 --device cuda": "needs a GPU and a copy of CIFAR-10",
    "budgetnet search --data folder:/data/pets": "needs those images; the page on data of one's own runs the like",
    "budgetnet search --data folder:/data/photos,size=64": "likewise",
    "budgetnet search --data arrays:/data/pets.npz --train-size 5000 --validation-size 2000": "likewise",
}
"""Commands, or their first word, that stand in a block beside others and cannot be run, and why."""

SHORTENED = {
    "budgetnet train resnet20 --epochs 2": "--epochs 1",
    "budgetnet train resnet20 --recipe modern --epochs 20": "--epochs 1",
    "budgetnet search --max-params 1M --trials 10": "--trials 2 --epochs 1",
    "budgetnet search --max-params 1M --trials 20 --workers 2 --timeout 10m --enqueue resnet20 --finalists 2": (
        "--trials 2 --epochs 1 --finalists 1 --final-seeds 1 --final-epochs 1"
    ),
    "budgetnet bench check": "--seconds 1",
    "budgetnet bench train reference": "--seconds 1 --batch 2",
    "budgetnet ablate kernels.yaml": "--epochs 1",
    "budgetnet ablate options.yaml --save results": "--epochs 1 --seeds 1",
    "budgetnet search --max-params 60k --trials 6": "--trials 2 --epochs 1",
    "budgetnet ablate --of best --seeds 5": "--epochs 1 --seeds 1",
    "budgetnet bench quality --repeat 40 --strategies random,near,tpe,nsga2,surrogate": (
        "--repeat 2 --strategies random"
    ),
}
"""Options behind those of a command that would take minutes; of an option given twice, the last counts."""

SHORTENED_AGAIN = {
    "budgetnet search --max-params 60k --trials 6 --finalists 1 --final-seeds 2": (
        "--trials 2 --epochs 2 --final-epochs 2"
    ),
    "budgetnet search --objectives accuracy,macs --max-params 60k --trials 8 --epochs 2": "--trials 3 --epochs 1",
    "budgetnet bench check": "--seconds 0.1",
    "budgetnet bench train reference": None,
}
"""Options behind those in the first tier of tests, for commands that take tens of seconds; None: not run there."""

READ_FIRST = ("README.md", "docs/tutorial.md", "docs/searching.md")
"""Pages that also run in the first tier of tests."""

ENDS = {"budgetnet check reference --max-params 4.5M": 3, "budgetnet check reference --max-params 4.6M": 3}
"""Exit codes other than 0 that a page speaks of."""

MODELS: dict[str, type[Document]] = {
    "spec.yaml": ModelSpec,
    "recipe.yaml": Recipe,
    "space.yaml": SearchSpace,
    "study.yaml": AblationStudy,
}


def left_out(command: Command) -> bool:
    return command.text in LEFT_OUT or command.text.partition(" ")[0] in LEFT_OUT


def runs(block: Block) -> bool:
    return block.reason is None and (block.language == "python" or bool(commands_of(block)))


RUNNING = [page for page in PAGES if any(runs(block) for block in blocks_of(page))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_whatever_looks_like_a_command_is_run_or_says_why_not(page: Path) -> None:
    blocks = blocks_of(page)
    seen = {command.line for block in blocks for command in commands_of(block)}
    inside = {line for block in blocks for line in range(block.line, block.line + block.text.count("\n") + 1)}
    lines = page.read_text(encoding="utf-8").splitlines()
    looks = {number for number in inside if COMMAND.match(lines[number - 1])}
    assert looks <= seen
    # A reason stands right above the block that it is for, and that block would else be run.
    reasons = [block for block in blocks if block.reason is not None]
    assert len(reasons) == sum(bool(NOT_RUN.fullmatch(line)) for line in lines)
    assert all(block.language == "python" or commands_of(block) for block in reasons)


def test_no_exception_is_made_for_what_nothing_shows() -> None:
    shown = [command for page in PAGES for block in blocks_of(page) for command in commands_of(block)]
    texts = {command.text for command in shown} | {command.text.partition(" ")[0] for command in shown}
    assert LEFT_OUT.keys() | SHORTENED.keys() | SHORTENED_AGAIN.keys() | ENDS.keys() <= texts


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_shown_are_read_by_their_models(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page):
        if block.title in MODELS:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
            assert MODELS[block.title].load(tmp_path / block.title).to_mapping()


def changes_code(page: Path) -> bool:
    """Whether a page changes the package, which no process that has loaded it would notice."""
    return any(block.language == "diff" for block in blocks_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_exist(page: Path) -> None:
    for command in (command for block in blocks_of(page) for command in commands_of(block)):
        program, *arguments = shlex.split(command.text, comments=True) or [""]
        if program == "budgetnet":
            parse(arguments[: arguments.index("|")] if "|" in arguments else arguments, where=command.text)


def parse(arguments: list[str], *, where: str) -> None:
    """Parse the arguments of the command line without running it."""
    command: Any = get_command(app)
    context = command.context_class(command)
    try:
        while hasattr(command, "resolve_command"):
            _, rest, _ = command.make_parser(context).parse_args(list(arguments))
            if not rest:
                return
            _, command, arguments = command.resolve_command(context, rest)
            context = command.context_class(command, parent=context)
        command.make_parser(context).parse_args(list(arguments))
    except USAGE_ERROR as error:
        raise AssertionError(f"{where}: {error}") from None


def test_an_option_that_is_missing_is_found() -> None:
    with pytest.raises(AssertionError, match="--max-parms"):
        parse(["device", "show", "FILE", "--max-parms", "5M"], where="budgetnet device show FILE --max-parms 5M")
    with pytest.raises(AssertionError, match="serch"):
        parse(["serch"], where="budgetnet serch")


@pytest.mark.skipif(not AVAILABLE, reason="this system forks no processes from a server")
@pytest.mark.parametrize("page", [ROOT / name for name in READ_FIRST], ids=name_of)
def test_a_page_runs_in_forked_processes(page: Path, tmp_path: Path) -> None:
    run_page(page, folder=tmp_path, forked=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_a_page_runs_from_its_first_block_to_its_last(page: Path, tmp_path: Path) -> None:
    run_page(page, folder=tmp_path, forked=False)


def run_page(page: Path, *, folder: Path, forked: bool) -> None:
    shutil.copytree(ROOT / "studies", folder / "studies")
    Image.fromarray((15 * load_digits().images[0]).astype("uint8")).save(folder / "IMAGE.png")
    reader = Reader(folder, forked=forked)
    if changes_code(page):
        # Changes to the code are made to a copy of it, and what follows them runs that copy.
        reader.source = folder
        for part in ("budgetnet", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks_of(page):
        where = f"{name_of(page)}:{block.line}"
        if block.title is not None:
            (folder / block.title).write_text(block.text + "\n", encoding="utf-8")
            if block.language == "diff":
                reader.enter(f"git apply {block.title}", where=where)
        elif block.reason is None and block.language == "python":
            (folder / "shown.py").write_text(block.text, encoding="utf-8")
            reader.enter("python shown.py", where=where)
        elif block.reason is None:
            for command in commands_of(block):
                if not left_out(command):
                    reader.run(command, page=page)
    if changes_code(page):
        files = "tests/model/test_cost.py tests/model/test_plan_cost.py"
        counted = f"python -m pytest -q -p no:cacheprovider {files} -k params"
        reader.enter(counted, where=name_of(page))


class Reader:
    """Enters what a page shows, in a folder of its own."""

    def __init__(self, folder: Path, *, forked: bool) -> None:
        self.folder, self.source, self.forked = folder, ROOT, forked

    def run(self, command: Command, *, page: Path) -> None:
        """Enter a command, with what is to be filled in and shortened, and compare what it prints with the page."""
        again = SHORTENED_AGAIN.get(command.text, "") if self.forked else ""
        if again is None:
            return
        more = [SHORTENED.get(command.text), again]
        text = " ".join([self._filled_in(command.text), *filter(None, more)])
        where = f"{name_of(page)}:{command.line}"
        said = self.enter(text, where=where, code=ENDS.get(command.text, 0))
        if command.output is not None:
            until = command.output.index("...") if "..." in command.output else None
            printed = [line.rstrip() for line in said.splitlines()]
            assert printed[:until] == command.output[:until], where

    def _filled_in(self, text: str) -> str:
        """The command with run folders in place of the words that stand for them."""
        if "runs/BEST" in text:
            told = self.enter("budgetnet leaderboard --json", where=text)
            text = text.replace("runs/BEST", f"runs/{json.loads(told)['rows'][0]['run']}")
        if "runs/RUN" in text:
            results = sorted(self.folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
            trained = [path.parent for path in results if json.loads(path.read_text())["status"] == "complete"]
            for name, path in zip(("runs/RUN", "runs/OTHER"), trained, strict=False):
                text = text.replace(name, str(path))
        return text

    def enter(self, text: str, *, where: str, code: int = 0) -> str:
        """Enter a line as in a shell with an active environment, and return what it prints."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.source), "OMP_NUM_THREADS": "1"}
        environment |= {"COLUMNS": "80", "BUDGETNET_CACHE": str(self.folder / "cache")}
        program, *arguments = shlex.split(text)
        if self.forked and program in ("budgetnet", "python") and not set(text) & set("|<>;&$"):
            function = command_line if program == "budgetnet" else python_file
            expanded = [each for argument in arguments for each in self._expanded(argument)]
            with ForkedProcess(expanded, cwd=self.folder, environment=environment, function=function) as process:
                out, err = process.communicate(timeout=300)
                returned = process.wait()
        else:
            shell = ["bash", "-euo", "pipefail", "-c", text]
            done = subprocess.run(
                shell, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
            )
            out, err, returned = done.stdout, done.stderr, done.returncode
        assert returned == code, f"{where}: {text}\n{out}\n{err}"
        return out

    def _expanded(self, argument: str) -> list[str]:
        """The names that a pattern stands for in a shell."""
        found = self.folder.glob(argument) if "*" in argument else ()
        return sorted(str(path.relative_to(self.folder)) for path in found) or [argument]
