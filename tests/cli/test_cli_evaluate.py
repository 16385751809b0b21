"""`budgetnet evaluate` and `budgetnet ensemble`: scores, use of the test set, and errors."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_support import STOPPED, Runs, open_test_set, reference_probabilities, validation_rows
from rich.console import Console
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from support import TINY, RunCommand, child_environment, snapshot, strict_json, tiny_recipe

from budgetnet import train
from budgetnet.cli.evaluation_tables import confusion_table
from budgetnet.data import DataSet, read_openings
from budgetnet.data.sources import load_digits
from budgetnet.runs.metrics import Scores
from budgetnet.runs.recipe import LEAKAGE_WARNING, Views
from budgetnet.runs.store import TEST_OPENINGS_FILE
from budgetnet.statistics.intervals import wilson_interval

CPU = ["--device", "cpu"]


pytestmark = pytest.mark.usefixtures("folder")


def answered(tell: RunCommand, *arguments: str, code: int = 0) -> Any:
    answer = tell(*arguments, *CPU, "--json")
    assert (answer.code, answer.err) == (code, "")
    return strict_json(answer.out)


def test_the_epoch_of_the_weights_is_shown_with_why_it_was_chosen(runs: Runs, tell: RunCommand) -> None:
    (record,) = runs("good0")
    losses = [epoch.validation_loss for epoch in record.curves]
    best = losses.index(min(losses)) + 1
    shown = " ".join(tell("evaluate", "good0", *CPU).out.split())
    (found,) = strict_json(tell("evaluate", "good0", *CPU, "--json").out)["runs"]
    assert found["recipe"] != ""
    expected = f"recipe {found['recipe']}, seed 0, weights of epoch {best} of {len(losses)} (lowest validation loss)"
    assert expected in shown
    assert "on validation images, which also selected each run's best epoch by its loss; test set not used" in shown


@pytest.mark.parametrize("on", ["validation", "test"])
def test_scores_match_scikit_learn(runs: Runs, digits: DataSet, tell: RunCommand, folder: Path, on: str) -> None:
    records = runs("good0", "good1")
    answer = answered(tell, "evaluate", "good0", "good1", "--on", on, "--bins", "7")
    assert [each["run"] for each in answer["runs"]] == ["good0", "good1"]
    predictions = []
    for record, each in zip(records, answer["runs"], strict=True):
        rows = validation_rows(digits, record)
        images, labels = digits.train_images[rows], digits.train_labels[rows]
        if on == "test":
            images, labels = open_test_set(digits, folder)
        predictions.append(reference_probabilities(record, images, views="flip").argmax(axis=1))
        said = predictions[-1]
        assert each["accuracy"] == pytest.approx(accuracy_score(labels, said))
        assert each["interval"] == pytest.approx(list(wilson_interval(each["correct"], len(labels))))
        assert each["confusion"] == confusion_matrix(labels, said).tolist()
        assert [row["name"] for row in each["classes"]] == list(digits.class_names)
        assert [row["accuracy"] for row in each["classes"]] == pytest.approx(
            list(recall_score(labels, said, average=None))
        )
        precisions = precision_score(labels, said, average=None, zero_division=np.nan)
        assert [row["precision"] for row in each["classes"]] == [
            None if np.isnan(precision) else pytest.approx(precision) for precision in precisions
        ]
        assert sum(part["count"] for part in each["calibration"]) == len(labels)
        assert len(each["calibration"]) == 7
        assert (each["leaks"], each["foreign"], each["kept"]) == (False, False, False)
    (pair,) = answer["comparisons"]
    first, second = (said == labels for said in predictions)
    assert (pair["only_first"], pair["only_second"]) == (int((first & ~second).sum()), int((second & ~first).sum()))
    assert (pair["first"], pair["second"], pair["images"]) == ("good0", "good1", len(labels))
    assert pair["p"] == pair["p_holm"]


def test_test_set_is_used_only_on_request_and_once(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0", "good1")
    for verb in ("evaluate", "ensemble"):
        answer = tell(verb, "good0", "good1", *CPU)
        assert (answer.code, answer.err) == (0, "")
        assert "test set not used" in answer.out
    assert not (folder / TEST_OPENINGS_FILE).exists()
    first = tell("evaluate", "good0", "--on", "test", *CPU)
    assert "test set used for good0; recorded in test-openings.jsonl" in first.out
    again = tell("evaluate", "good0", "--on", "test", *CPU)
    assert "stored scores, test set not used again: good0" in again.out
    assert [line for line in again.out.splitlines() if "stored scores" not in line] == [
        line for line in first.out.splitlines() if "test set used" not in line
    ]
    assert [each["by"] for each in read_openings(folder / TEST_OPENINGS_FILE)] == ["evaluate"]
    both = tell("ensemble", "good0", "good1", "--on", "test", *CPU)
    assert "test set not used again: good0" in both.out
    assert "test set used for good1;" in both.out
    assert [each["by"] for each in read_openings(folder / TEST_OPENINGS_FILE)] == ["evaluate", "ensemble"]
    before = snapshot(folder)
    assert tell("ensemble", "good0", "good1", "--on", "test", "--tta", "flip", *CPU).code == 0
    assert snapshot(folder) == before


def test_stored_scores_are_read_without_torch(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0", "good1")
    assert tell("evaluate", "good0", "good1", "--on", "test", *CPU).code == 0
    for verb in ("evaluate", "ensemble"):
        code = (
            "import sys; from budgetnet.cli.main import main; "
            f"code = main(['{verb}', 'good0', 'good1', '--on', 'test']); "
            "assert (code, 'torch' in sys.modules) == (0, False)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert len(read_openings(folder / TEST_OPENINGS_FILE)) == 1


@pytest.mark.parametrize(
    ("tta", "views", "text"),
    [
        ("recipe", "flip", "validation images, averaged over flips;"),
        ("none", "none", "validation images;"),
        ("flip-and-shifts", "flip-and-shifts", "validation images, averaged over flips and shifts;"),
    ],
)
def test_views_are_selected_and_named(
    runs: Runs, digits: DataSet, tell: RunCommand, tta: str, views: Views, text: str
) -> None:
    (record,) = runs("good0")
    (answer,) = answered(tell, "evaluate", "good0", "--tta", tta)["runs"]
    rows = validation_rows(digits, record)
    expected = reference_probabilities(record, digits.train_images[rows], views=views)
    assert answer["views"] == views
    assert answer["loss"] == pytest.approx(-np.log(expected[np.arange(40), digits.train_labels[rows]]).mean(), rel=1e-5)
    assert text in " ".join(tell("evaluate", "good0", "--tta", tta, *CPU).out.split())


def test_leaking_accuracy_is_marked(runs: Runs, tell: RunCommand) -> None:
    runs("leaking", "good0")
    alone = " ".join(tell("evaluate", "leaking", *CPU).out.split())
    assert f"] %; {LEAKAGE_WARNING}; during training" in alone
    many = " ".join(tell("evaluate", "leaking", "good0", *CPU).out.split())
    assert many.count(LEAKAGE_WARNING) == 2, "beside the accuracy, and below the table of all runs"
    assert many.count("] leaking") == 1
    assert LEAKAGE_WARNING in tell("ensemble", "leaking", "good0", *CPU).out
    assert [each["leaks"] for each in answered(tell, "evaluate", "leaking", "good0")["runs"]] == [True, False]
    assert answered(tell, "ensemble", "leaking", "good0")["leaks"] is True
    on_test = tell("evaluate", "leaking", "good0", "--on", "test", *CPU).out
    assert "leaking:" not in on_test
    assert "] leaking" not in on_test


def test_ensemble_matches_averaged_probabilities(runs: Runs, digits: DataSet, tell: RunCommand) -> None:
    records = runs("good0", "good1", "good2")
    rows = validation_rows(digits, records[0])
    images, labels = digits.train_images[rows], digits.train_labels[rows]
    each = [reference_probabilities(record, images, views="none") for record in records]
    mean = np.mean(each, axis=0)
    answer = answered(tell, "ensemble", "good0", "good1", "good2", "--tta", "none", "--max-params", "5M")
    assert answer["ensemble"]["accuracy"] == pytest.approx(accuracy_score(labels, mean.argmax(axis=1)))
    accuracies = [accuracy_score(labels, one.argmax(axis=1)) for one in each]
    assert [member["accuracy"] for member in answer["members"]] == pytest.approx(accuracies)
    assert answer["ensemble"]["loss"] == pytest.approx(-np.log(mean[np.arange(40), labels]).mean(), rel=1e-5)
    for pair, one in zip(answer["comparisons"], each, strict=True):
        ours, theirs = mean.argmax(axis=1) == labels, one.argmax(axis=1) == labels
        assert (pair["only_first"], pair["only_second"]) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
    assert (answer["max_params"], answer["fits"], answer["leaks"], answer["on"]) == (
        5_000_000,
        True,
        False,
        "validation",
    )
    table = tell("ensemble", "good0", "good1", "good2", "--tta", "none", *CPU).out
    for share in [*accuracies, sum(accuracies) / 3, answer["ensemble"]["accuracy"]]:
        assert f" {100 * share:.0f} " in table
    assert f"{3 * records[0].result.params:,} parameters and {3 * records[0].result.macs:,} MACs in total\n" in table


def test_ensemble_over_budget_is_shown_and_exits_with_3(runs: Runs, tell: RunCommand) -> None:
    total = sum(record.result.params for record in runs("good0", "good1"))
    fits = tell("ensemble", "good0", "good1", "--max-params", str(total), *CPU)
    assert (fits.code, f"in total: fits, {total:,} allowed, headroom 0\n" in fits.out) == (0, True)
    over = tell("ensemble", "good0", "good1", "--max-params", str(total - 1), *CPU)
    assert (over.code, over.err) == (3, "")
    assert f"in total: over budget, {total - 1:,} allowed, headroom -1\n" in over.out
    answer = answered(tell, "ensemble", "good0", "good1", "--max-params", str(total - 1), code=3)
    assert (answer["fits"], answer["max_params"], answer["ensemble"]["params"]) == (False, total - 1, total)


def test_runs_with_other_splits_are_averaged_only_on_test_images(runs: Runs, tell: RunCommand, folder: Path) -> None:
    runs("good0", "otherwise-split")
    answer = tell("ensemble", "good0", "otherwise-split", *CPU)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "has a different split than good0" in answer.err
    assert tell("ensemble", "good0", "otherwise-split", "--on", "test", *CPU).code == 0
    apart = tell("evaluate", "good0", "otherwise-split", *CPU).out
    assert "runs evaluated on different images are not compared" in apart
    assert "McNemar" not in apart
    assert answered(tell, "evaluate", "good0", "otherwise-split")["comparisons"] == []
    assert "McNemar" in tell("evaluate", "good0", "otherwise-split", "--on", "test", *CPU).out


def test_runs_with_other_numbers_of_training_images_are_compared(
    tell: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes: dict[str, Any] = {"data": "digits", "validation_size": 40, "device": "cpu", "verbosity": "quiet"}
    runs = [train(TINY, recipe=tiny_recipe(epochs=1), train_size=size, **sizes).folder.name for size in (64, 128)]
    (comparison,) = answered(tell, "evaluate", *(f"runs/{run}" for run in runs))["comparisons"]
    assert comparison["images"] == 40
    assert "McNemar" in tell("evaluate", *(f"runs/{run}" for run in runs), *CPU).out


def test_own_images_are_evaluated_by_name(runs: Runs, tell: RunCommand, folder: Path) -> None:
    (record,) = runs("good0")
    images = load_digits().train_images[:60, 0]
    labels = load_digits().train_labels[:60]
    np.savez("mine.npz", train_images=images, train_labels=labels, test_images=255 - images, test_labels=labels)
    data = ["--data", "arrays:mine.npz"]
    refused = tell("evaluate", "good0", *data, *CPU)
    assert (refused.code, refused.out) == (2, "")
    assert "use --on test" in refused.err
    assert not (folder / TEST_OPENINGS_FILE).exists()
    (answer,) = answered(tell, "evaluate", "good0", "--on", "test", *data)["runs"]
    expected = reference_probabilities(record, 255 - images[:, np.newaxis], views="flip").argmax(axis=1)
    assert answer["confusion"] == confusion_matrix(labels, expected, labels=range(10)).tolist()
    assert answer["foreign"] is True
    assert [each["count"] for each in read_openings(folder / TEST_OPENINGS_FILE)] == [60]
    assert "not the data set that it was trained on (digits)" in tell("evaluate", "good0", "--on", "test", *data).out


@pytest.mark.parametrize("verb", ["evaluate", "ensemble"])
@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "RUN"),
        (["good0", "nowhere"], "run folder = 'nowhere': no such folder"),
        (["good0", "diverged"], "run folder = 'diverged': has no result: the loss was not finite"),
        (["good0", "unfinished"], "run folder = 'unfinished': is unfinished"),
        (["good0", "damaged"], "damaged/result.json"),
        (["good0", "good0"], "is given twice"),
        (["good0", STOPPED, "--on", "test"], f"run folder = '{STOPPED}': was stopped early"),
        (["good0", "good1", "--on", "train"], "--on = 'train': must be one of validation, test"),
        (["good0", "good1", "--tta", "crop"], "--tta = 'crop': must be one of none, flip, flip-and-shifts, recipe"),
        (["good0", "good1", "--device", "abacus"], "--device = 'abacus'"),
        (["good0", "good1", "--data", "digit"], "did you mean digits?"),
        (["good0", "good1", "--data", "arrays:no.npz", "--on", "test"], "data = 'arrays:no.npz': no such file"),
        (["good0", "moved"], "data = 'arrays:gone.npz': no such file; moved was trained on it"),
    ],
)
def test_bad_input_gives_one_line_and_does_not_use_test_set(
    runs: Runs, tell: RunCommand, folder: Path, verb: str, arguments: list[str], hint: str
) -> None:
    for name in ("unfinished", "damaged", "moved"):
        runs("good1")
        (folder / "good1").rename(folder / name)
    runs("good0", "good1", "diverged", STOPPED)
    (folder / "unfinished" / "result.json").unlink()
    (folder / "damaged" / "result.json").write_text("{}")
    path = folder / "moved" / "run.json"
    path.write_text(path.read_text().replace('"name": "digits",\n    "prov', '"name": "arrays:gone.npz",\n    "prov'))
    before = snapshot(folder)
    answer = tell(verb, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert hint in answer.err
    assert snapshot(folder) == before


def test_options_of_single_commands(runs: Runs, tell: RunCommand) -> None:
    runs("good0", "good1")
    for arguments, hint in [
        (["evaluate", "good0", "--bins", "0"], "--bins"),
        (["ensemble", "good0"], "RUN = 'good0': must be at least two runs"),
        (["ensemble", "good0", "good1", "--max-params", "none"], "--max-params"),
    ]:
        answer = tell(*arguments)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert hint in answer.err


def test_a_run_is_found_from_within_its_folder(
    runs: Runs, tell: RunCommand, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs("good0")
    monkeypatch.chdir(folder / "good0")
    assert answered(tell, "evaluate", ".", "--on", "test")["runs"][0]["run"] == "good0"
    assert (folder / TEST_OPENINGS_FILE).exists()
    assert not (folder / "good0" / TEST_OPENINGS_FILE).exists()


def shown(scores: Scores, names: list[str], width: int) -> str:
    printed = io.StringIO()
    Console(file=printed, width=width).print(confusion_table(scores, names, width=width))
    assert max(len(line.rstrip()) for line in printed.getvalue().splitlines()) <= width
    return printed.getvalue()


def test_ten_classes_of_a_thousand_images_are_shown_in_eighty_columns() -> None:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    labels = np.repeat(np.arange(10), 1000)
    said = labels.copy()
    said[1000:1123], said[3000:3007] = 9, 5
    text = shown(Scores(np.eye(10)[said], labels), names, 80)
    rows = {
        line.split()[1]: line.split()[2:]
        for line in text.splitlines()
        if line.split()[1:2] in [[name] for name in names]
    }
    for number, name in enumerate(names):
        expected = confusion_matrix(labels, said)[number].tolist()
        assert rows[name] == [str(count) if count else "." for count in expected]


@pytest.mark.parametrize(("longest", "matrix"), [(20, True), (21, False)])
def test_the_matrix_is_shown_where_it_has_just_enough_room(longest: int, matrix: bool) -> None:
    # Fifteen columns of two figures and two spaces beside the labels.
    names = ["x" * (longest - len("0 ")), *(f"kind {number}" for number in range(1, 15))]
    labels = np.repeat(np.arange(15), 12)
    text = shown(Scores(np.eye(15)[labels], labels), names, 80)
    assert ("true class in rows" in text, "most frequent" in text) == (matrix, not matrix)
    assert "…" not in text


def test_of_many_classes_the_most_frequent_confusions_are_listed() -> None:
    labels = np.repeat(np.arange(100), 4)
    said = labels.copy()
    for truth in range(12):
        said[4 * truth : 4 * truth + 1 + truth % 4] = 99 - truth
    text = shown(Scores(np.eye(100)[said], labels), [f"kind {number}" for number in range(100)], 80)
    assert "most frequent confusions" in text
    listed = [line.split() for line in text.splitlines() if "kind" in line]
    assert len(listed) == 10
    assert [(row[2], row[5], row[7], row[9]) for row in listed[:4]] == [
        ("3", "96", "4", "100.00"),
        ("7", "92", "4", "100.00"),
        ("11", "88", "4", "100.00"),
        ("2", "97", "3", "75.00"),
    ]
