"""Every command and program that README and documentation show, run as a reader would: page by page, in their order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented_support import COMMAND, NOT_RUN, PAGES, ROOT, Block, Command, blocks_of, commands_of, name_of
from PIL import Image
from sklearn.datasets import load_digits

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
}
"""Options behind those of a command that would take minutes; of an option given twice, the last counts."""

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
    assert LEFT_OUT.keys() | SHORTENED.keys() | ENDS.keys() <= texts


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_shown_are_read_by_their_models(page: Path, tmp_path: Path) -> None:
    for block in blocks_of(page):
        if block.title in MODELS:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
            assert MODELS[block.title].load(tmp_path / block.title).to_mapping()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_a_page_runs_from_its_first_block_to_its_last(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    Image.fromarray((15 * load_digits().images[0]).astype("uint8")).save(tmp_path / "IMAGE.png")
    source = ROOT
    blocks = blocks_of(page)
    if any(block.language == "diff" for block in blocks):
        # Changes to the code are made to a copy of it, and what follows them runs that copy.
        source = tmp_path
        for part in ("budgetnet", "tests"):
            shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks:
        where = f"{name_of(page)}:{block.line}"
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text + "\n", encoding="utf-8")
            if block.language == "diff":
                enter(f"git apply {block.title}", folder=tmp_path, source=source, where=where)
        elif block.reason is None and block.language == "python":
            (tmp_path / "shown.py").write_text(block.text, encoding="utf-8")
            enter("python shown.py", folder=tmp_path, source=source, where=where)
        elif block.reason is None:
            for command in commands_of(block):
                if not left_out(command):
                    run(command, folder=tmp_path, source=source, page=page)
    if source == tmp_path:
        files = "tests/model/test_cost.py tests/model/test_plan_cost.py"
        counted = f"python -m pytest -q -p no:cacheprovider {files} -k params"
        enter(counted, folder=tmp_path, source=source, where=name_of(page))


def run(command: Command, *, folder: Path, source: Path, page: Path) -> None:
    text = " ".join([filled_in(command.text, folder), *filter(None, [SHORTENED.get(command.text)])])
    where = f"{name_of(page)}:{command.line}"
    said = enter(text, folder=folder, source=source, where=where, code=ENDS.get(command.text, 0))
    if command.output is not None:
        until = command.output.index("...") if "..." in command.output else None
        printed = [line.rstrip() for line in said.splitlines()]
        assert printed[:until] == command.output[:until], where


def filled_in(text: str, folder: Path) -> str:
    """The command with run folders in place of the words that stand for them."""
    if "runs/BEST" in text:
        told = enter("budgetnet leaderboard --json", folder=folder, source=ROOT, where=text)
        text = text.replace("runs/BEST", f"runs/{json.loads(told)['rows'][0]['run']}")
    if "runs/RUN" in text:
        results = sorted(folder.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime_ns)
        trained = [path.parent for path in results if json.loads(path.read_text())["status"] == "complete"]
        for name, path in zip(("runs/RUN", "runs/OTHER"), trained, strict=False):
            text = text.replace(name, str(path))
    return text


def enter(text: str, *, folder: Path, source: Path, where: str, code: int = 0) -> str:
    """Enters a line in a shell, as in an environment that is active, and gives what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    environment["BUDGETNET_CACHE"] = str(folder / "cache")
    shell = ["bash", "-euo", "pipefail", "-c", text]
    told = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode == code, f"{where}: {text}\n{told.stdout}\n{told.stderr}"
    return told.stdout
