"""Progress on standard error: lines in logs, bars and lasting lines in a terminal, counts after a resume."""

from __future__ import annotations

import io
import itertools
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from rich.console import Console
from rich.progress import Progress
from support import PAIR_SPACE, TINY, prepare, tiny_recipe

import budgetnet as bn
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch, RunResult
from budgetnet.training.callbacks import Callback, RunContext, RunInfo
from budgetnet.training.progress import (
    VERBOSITY_VARIABLE,
    ProgressBars,
    ProgressLines,
    _bars,
    load_with_progress,
    showing,
)
from budgetnet.training.trainer import identify
from budgetnet.training.work import Work

EPOCHS = 10


@pytest.fixture(autouse=True)
def normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERBOSITY_VARIABLE)


@pytest.fixture
def run(digits: DataSet) -> RunInfo:
    recipe = tiny_recipe(epochs=EPOCHS)
    return RunInfo(identify(TINY, prepare(digits, recipe), recipe, seed=0), "folder")


def epoch(number: int) -> Epoch:
    return Epoch(number, 1, 0.1, 0.5, 0.6, 0.7, number / 100, 1.0)


def result(status: Any = "complete", accuracy: float | None = 0.9) -> RunResult:
    return RunResult(
        status=status,
        reason="why",
        params=TINY.params,
        macs=TINY.macs,
        activations=TINY.activations,
        epochs=EPOCHS,
        cycles=1,
        best_epoch=1,
        seconds=12.3,
        validation_correct=None if accuracy is None else round(accuracy * 1000),
        validation_images=1000,
        validation_loss=None if accuracy is None else 0.5,
    )


def train_epochs(callback: Callback, numbers: range) -> None:
    for number in numbers:
        callback.on_step_end(number, 1.0, worker=0)
        callback.on_epoch_end(epoch(number), worker=0)


def test_lines_of_one_run_are_rare_and_tell_the_time_left(run: RunInfo, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = itertools.count(step=25)
    lines = ProgressLines(Work(), clock=lambda: float(next(ticks)))
    lines.on_run_start(run, worker=0)
    train_epochs(lines, range(1, EPOCHS + 1))
    lines.on_run_end(result(), worker=0)
    params = f"{run.label}, {TINY.params / 1000:.1f}k parameters"
    # An epoch takes 25 s, so after the first one every third line is due.
    assert capsys.readouterr().err.splitlines() == [
        f"{params}: up to 10 epochs",
        "epoch 1 of 10: validation accuracy 1 %, training loss 0.500, about 3 min 45 s left",
        "epoch 4 of 10: validation accuracy 4 %, training loss 0.500, about 2 min 30 s left",
        "epoch 7 of 10: validation accuracy 7 %, training loss 0.500, about 1 min 15 s left",
        "epoch 10 of 10: validation accuracy 10 %, training loss 0.500",
    ]


def test_every_epoch_and_a_resumed_run(run: RunInfo, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(Work(), every_epoch=True, clock=itertools.count(step=3.0).__next__)
    lines.on_run_start(run._replace(curves=tuple(map(epoch, range(1, 8)))), worker=0)
    train_epochs(lines, range(8, 11))
    first, *others = capsys.readouterr().err.splitlines()
    assert first.endswith(": resumes after epoch 7 of 10")
    # Three seconds for each epoch since the start, not since the first epoch of all.
    assert [line.partition("0.500")[2] for line in others] == [", about 6.0 s left", ", about 3.0 s left", ""]


def test_a_complete_run_is_not_announced(run: RunInfo, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(Work())
    lines.on_run_start(run._replace(curves=(epoch(1),)), worker=0)
    lines.on_run_end(result(), worker=0)
    assert capsys.readouterr().err == ""


def search_of(callback: Callback, run: RunInfo) -> None:
    """A trial that is pruned, one rejected, one that fails and one that is complete."""
    for number, end in ((3, result("stopped", 0.5)), (5, None), (6, result())):
        callback.on_run_start(run._replace(context=RunContext(trial=number, trained=2 + (number > 3))), worker=0)
        callback.on_step_end(1, 0.5, worker=0)
        if end is None:
            callback.on_trial_rejected(worker=0)
            callback.on_run_interrupted("RuntimeError: oops", worker=0)
        else:
            callback.on_run_end(end, worker=0)


ENDED = [
    "{trial}: pruned, 50.00 % after 10 epochs, 12.3 s",
    "{trial}: failed: RuntimeError: oops",
    "{trial}: complete, 90.00 % after 10 epochs, 12.3 s",
]


def test_lines_of_a_resumed_search(run: RunInfo, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(noun="trials", total=6, trained=2, pruned=1, best=0.75)
    ticks = itertools.count(step=10.0)
    search_of(ProgressLines(work, clock=ticks.__next__), run)
    told = capsys.readouterr().err.splitlines()
    names = [f"#{number} {run.label}, {TINY.params / 1000:.1f}k parameters" for number in (3, 5, 6)]
    pruned, failed, complete = (line.format(trial=name) for line, name in zip(ENDED, names, strict=True))
    starts = [f"{name}: up to 10 epochs" for name in names]
    assert [line for line in told if line[0] == "#"] == [
        *(starts[0], pruned),
        *(starts[1], failed),
        *(starts[2], complete),
    ]
    # The clock is read at each start and each end: one trial in 10 s, then two in 40 s.
    assert [line for line in told if line[0] != "#"] == [
        "3 of 6 trials · best 75.00 % · 2 pruned · 0 over budget · about 30.0 s left",
        "4 of 6 trials · best 90.00 % · 2 pruned · 1 over budget · about 40.0 s left",
    ]


def test_bars_keep_finished_trials_visible(run: RunInfo) -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200, color_system=None)
    work = Work(noun="trials", total=6, trained=2, pruned=1, best=0.75)
    with Progress(console=console) as bars:
        search_of(ProgressBars(work, bars), run)
        assert [(task.description, task.completed, task.total) for task in bars.tasks] == [
            ("trials · best 90.00 % · 2 pruned · 1 over budget", 4, 6),
            (f"#6 {run.label} · {TINY.params / 1000:.1f}k parameters", 0.5, 10),
        ]
    for line, number in zip(ENDED, (3, 5, 6), strict=True):
        assert line.format(trial=f"#{number} {run.label}, {TINY.params / 1000:.1f}k parameters") in shown.getvalue()


def test_bar_of_finals_has_the_total_that_is_known_later(run: RunInfo) -> None:
    work = Work(noun="trainings of finalists")
    with Progress(console=Console(file=io.StringIO())) as bars:
        progress = ProgressBars(work, bars)
        work.total, work.trained = 6, 2
        progress.on_run_start(run, worker=0)
        assert (bars.tasks[0].completed, bars.tasks[0].total) == (2, 6)


def test_names_and_memory_in_lines(run: RunInfo, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(noun="runs", total=2, names={run.run: "finalist 1/2, seed 2/2"})
    lines = ProgressLines(work, every_epoch=True)
    lines.on_run_start(run, worker=0)
    train_epochs(lines, range(1, 2))
    lines.on_run_interrupted("OutOfMemoryError: CUDA out of memory", worker=0)
    told = capsys.readouterr().err.splitlines()
    label = f"finalist 1/2, seed 2/2: {run.label}, {TINY.params / 1000:.1f}k parameters"
    assert told[0] == f"{label}: up to 10 epochs"
    assert told[1].startswith("finalist 1/2, seed 2/2, epoch 1 of 10: ")
    assert told[2] == f"{label}: ran out of memory"


@pytest.mark.parametrize("by_environment", [True, False])
def test_quiet_shows_nothing(
    run: RunInfo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    monkeypatch.setenv(VERBOSITY_VARIABLE, "quiet" if by_environment else "verbose")
    with showing(Work(noun="trials", total=6), verbosity=None if by_environment else "quiet") as progress:
        search_of(progress, run)
    assert capsys.readouterr() == ("", "")


def test_quiet_shows_no_bar_of_loading_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    load_with_progress("digits", verbosity="quiet")
    assert capsys.readouterr().err == ""
    load_with_progress("digits")
    assert "loading digits" in capsys.readouterr().err


IN_A_NOTEBOOK = """
from budgetnet.training.progress import ProgressBars, showing
from budgetnet.training.work import Work

with showing(Work(noun="runs", total=2)) as shown:
    assert type(shown) is ProgressBars
    shown.work.trained = 2
    shown._update_all()
"""


@pytest.mark.skipif(find_spec("ipywidgets") is None, reason="needs ipywidgets")
def test_bars_in_a_notebook_are_a_widget() -> None:
    cell = nbformat.v4.new_code_cell(IN_A_NOTEBOOK)  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert any("application/vnd.jupyter.widget-view+json" in each.get("data", {}) for each in outputs)
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert any("2/2" in str(each["state"].get("outputs")) for each in states), "the last state stays visible"


def test_a_wrong_environment_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERBOSITY_VARIABLE, "loud")
    with (
        pytest.raises(bn.InputError, match=r"^BUDGETNET_VERBOSITY = 'loud': must be quiet, normal, verbose$"),
        showing(),
    ):
        pass


def test_resumed_search_and_finals_count_from_where_they_were(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(epochs=1)
    config = bn.SearchConfig(
        space=PAIR_SPACE,
        recipe=recipe,
        final_recipe=recipe,
        max_params="30k",
        sizing="reject",
        sampler="tpe",
        device="cpu",
        train_size=64,
        validation_size=40,
        out=tmp_path,
        study="one",
    )
    bn.search(config, trials=1)
    first = capsys.readouterr().err.splitlines()
    best = first[-1].partition(" · ")[2].partition(" · ")[0]
    assert best.startswith("best ")
    assert first[-1].startswith(f"1 of 1 trials · {best} · 0 pruned · 0 over budget")
    # The finalist's first training is the trial's own, which is complete already.
    bn.search(config, trials=2, finalists=1, final_seeds=2)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" · ")[0] for line in told if " of " in line.partition(" · ")[0] and ":" not in line] == [
        "2 of 2 trials",
        "2 of 2 trainings of finalists",
    ]
    (started, ended) = (line for line in told if line.startswith("finalist "))
    assert started.startswith("finalist 1/1, seed 2/2: ")
    assert ended.startswith("finalist 1/1, seed 2/2: ")
    bn.search(config, trials=2, finalists=1, final_seeds=2)
    assert capsys.readouterr().err == ""


def test_numbers_of_bars_stay_in_narrow_terminals() -> None:
    written = io.StringIO()
    console = Console(file=written, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    bars = _bars(console)
    bars.add_task(
        "finalist 1/2, seed 1/2: bottleneck-24x2-24x3-48x4-80x2-80x1 · 56.0k parameters", total=30, completed=7
    )
    console.print(bars.get_renderable())
    (line,) = written.getvalue().splitlines()
    assert line.startswith("finalist 1/2, seed 1/2: ")
    assert re.search(r"… ━[━╸╺ ]* 7/30 0:00:00 -:--:--$", line.rstrip()), line
