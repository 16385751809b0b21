"""Evaluation of runs against predictions in plain code, and when it opens the test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_support import STOPPED, Runs, open_test_set, other_digits, reference_probabilities, validation_rows
from support import snapshot

from budgetnet.common.errors import DataError, InputError, RecordError
from budgetnet.common.files import read_mapping, write_json
from budgetnet.data import DataSet, read_openings
from budgetnet.evaluation.evaluate import evaluate_runs
from budgetnet.evaluation.run_data import EvaluationRequest, read_runs, require_common_classes
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import TEST_OPENINGS_FILE, RunFolder

TEST = EvaluationRequest("test", device="cpu")
VALIDATION = EvaluationRequest("validation", device="cpu")


def openings(folder: Path) -> list[tuple[str, str, int]]:
    return [(each["by"], each["reason"], each["count"]) for each in read_openings(folder / TEST_OPENINGS_FILE)]


@pytest.mark.parametrize("views", [None, "flip", "none", "flip-and-shifts"])
def test_validation_images_are_those_of_the_run(
    runs: Runs, digits: DataSet, tmp_path: Path, views: Views | None
) -> None:
    records = runs("good0", "otherwise-split")
    results = evaluate_runs(records, VALIDATION._replace(views=views))
    for record, result in zip(records, results, strict=True):
        rows = validation_rows(digits, record)
        expected = reference_probabilities(record, digits.train_images[rows], views=views or "flip")
        np.testing.assert_allclose(result.scores.probabilities, expected, atol=1e-5)
        assert result.scores.labels.tolist() == digits.train_labels[rows].tolist()
        assert (result.part, result.kept, result.views) == ("validation", False, views or "flip")
        assert result.class_names == digits.class_names
        if views in (None, "flip"):
            assert result.scores.correct == record.result.validation_correct
            assert result.remarks == []
    assert results[0].images != results[1].images
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()


def test_a_leaking_run_is_evaluated_on_the_split_of_its_recipe_and_marked(runs: Runs, digits: DataSet) -> None:
    (result,) = evaluate_runs(runs("leaking"), VALIDATION)
    rows = validation_rows(digits, result.record)
    np.testing.assert_allclose(
        result.scores.probabilities,
        reference_probabilities(result.record, digits.train_images[rows], views="flip"),
        atol=1e-5,
    )
    assert result.leaks
    assert result.remarks[0].startswith("leaking: ")
    recorded = result.record.result.validation_correct
    assert recorded != result.scores.correct, "the test needs different results"
    assert f"during training {recorded} of 40 were correct" in result.remarks[1]
    (otherwise,) = evaluate_runs([result.record], VALIDATION._replace(views="none"))
    assert otherwise.scores.correct != recorded, "the test needs different results"
    assert len(otherwise.remarks) == 1, "no remark with other views than in training"
    assert not evaluate_runs([result.record], TEST)[0].leaks


def test_a_stopped_run_is_evaluated_on_validation_images_only(runs: Runs, tmp_path: Path) -> None:
    records = read_runs([each.folder for each in runs("good0", STOPPED)])
    assert evaluate_runs(records, VALIDATION)[1].remarks == ["stopped early, after epoch 1: others were better"]
    with pytest.raises(RecordError, match=r"was stopped early \(others were better\)") as caught:
        evaluate_runs(records, TEST)
    assert caught.value.field == "run folder"
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()


def test_the_test_set_is_opened_once_and_predictions_are_stored(runs: Runs, digits: DataSet, tmp_path: Path) -> None:
    records = runs("good0", "good1")
    first = evaluate_runs(records[:1], TEST)
    reason = f"evaluation requested for {records[0].identity.run_id}"
    assert openings(tmp_path) == [("evaluate", reason, 360)]
    images, labels = open_test_set(digits, tmp_path)
    np.testing.assert_allclose(
        first[0].scores.probabilities, reference_probabilities(records[0], images, views="flip"), atol=1e-5
    )
    assert first[0].scores.labels.tolist() == labels.tolist()
    assert first[0].record.test is not None
    assert (first[0].record.test.correct, first[0].record.test.reason) == (first[0].scores.correct, reason)
    both = evaluate_runs(records, TEST._replace(by="ensemble"))
    assert [each.kept for each in both] == [True, False]
    assert [by for by, _, _ in openings(tmp_path)] == ["evaluate", "ensemble"]
    before = snapshot(tmp_path)
    (records[0].folder / "best.safetensors").unlink()
    (records[0].folder / "best.safetensors").touch()
    again = evaluate_runs(records, TEST._replace(device="nonsense"))
    assert [each.kept for each in again] == [True, True]
    for each, earlier in zip(again, both, strict=True):
        assert each.scores.probabilities.tolist() == earlier.scores.probabilities.tolist()
    assert openings(tmp_path)[2:] == []
    assert {name for name, file in snapshot(tmp_path).items() if before[name] != file} == {"good0/best.safetensors"}


def test_other_views_than_those_of_the_recipe_open_the_test_set_again(
    runs: Runs, digits: DataSet, tmp_path: Path
) -> None:
    (record,) = runs("good0")
    kept = evaluate_runs([record], TEST)[0]
    assert evaluate_runs([record], TEST._replace(views="flip"))[0].kept, "the views of the recipe"
    before = snapshot(record.folder)
    other = evaluate_runs([record], TEST._replace(views="none"))[0]
    images, _ = open_test_set(digits, tmp_path)
    np.testing.assert_allclose(
        other.scores.probabilities, reference_probabilities(record, images, views="none"), atol=1e-5
    )
    assert np.abs(other.scores.probabilities - kept.scores.probabilities).max() > 1e-3
    assert (other.kept, other.views, other.foreign, other.remarks) == (False, "none", False, [])
    assert other.images == kept.images
    assert openings(tmp_path)[1][1].endswith(", without mirror images, on digits")
    assert len(openings(tmp_path)) == 2
    shifted = evaluate_runs([record], TEST._replace(views="flip-and-shifts"))[0]
    expected = reference_probabilities(record, images, views="flip-and-shifts")
    np.testing.assert_allclose(shifted.scores.probabilities, expected, atol=1e-5)
    assert openings(tmp_path)[2][1].endswith(", with mirror images and shifts, on digits")
    assert snapshot(record.folder) == before


def test_another_data_set_is_normalised_as_in_training(runs: Runs, digits: DataSet, tmp_path: Path) -> None:
    records = runs("good0", "good1")
    other = other_digits()
    evaluation = TEST._replace(data="others")
    results = evaluate_runs(records, evaluation, load=lambda _: other)
    images, labels = open_test_set(other, tmp_path)
    for result in results:
        np.testing.assert_allclose(
            result.scores.probabilities, reference_probabilities(result.record, images, views="flip"), atol=1e-5
        )
        assert result.scores.labels.tolist() == labels.tolist()
        assert (result.foreign, result.kept, result.class_names) == (True, False, other.class_names)
        assert result.remarks == ["not the data set that it was trained on (digits)"]
        assert result.record.test is None
    expected = f"evaluation requested for {records[0].identity.run_id} and 1 more, on others"
    assert openings(tmp_path) == [("evaluate", expected, 50)]
    evaluate_runs(records, evaluation, load=lambda _: other)
    assert len(openings(tmp_path)) == 2, "predictions on another data set are not stored"


def test_the_same_images_under_another_name_are_the_data_set_of_the_run(runs: Runs, digits: DataSet) -> None:
    # For example, CIFAR-10 as an image folder has its own statistics, the original has published ones.
    moved = replace(digits, name="moved", mean=(0.0,), std=(2.0,))
    records = runs("good0")
    for evaluation in (VALIDATION, TEST):
        here = evaluate_runs(records, evaluation)[0]
        (records[0].folder / "test.json").unlink(missing_ok=True)
        (there,) = evaluate_runs(records, evaluation._replace(data="moved"), load=lambda _: moved)
        assert there.scores.probabilities.tolist() == here.scores.probabilities.tolist()
        assert (there.foreign, there.kept) == (False, False)
    assert evaluate_runs(records, TEST._replace(data="moved"), load=lambda _: moved)[0].kept


def test_missing_scores_of_an_earlier_version_are_stored(runs: Runs, tmp_path: Path) -> None:
    (record,) = runs("good0")
    first = evaluate_runs([record], TEST)[0]
    (record.folder / "test-scores.safetensors").unlink()
    before = (record.folder / "test.json").read_bytes()
    for kept in (False, True):
        (result,) = evaluate_runs(read_runs([record.folder]), TEST)
        assert result.kept is kept
        assert result.scores.probabilities.tolist() == first.scores.probabilities.tolist()
    assert len(openings(tmp_path)) == 2
    assert (record.folder / "test.json").read_bytes() == before
    (record.folder / "test-scores.safetensors").unlink()
    write_json(record.folder / "test.json", {**read_mapping(record.folder / "test.json"), "correct": 1})
    evaluate_runs(read_runs([record.folder]), TEST)
    assert not (record.folder / "test-scores.safetensors").exists(), "they do not reproduce the stored result"


def test_every_folder_of_runs_has_its_own_log_of_openings(runs: Runs, tmp_path: Path) -> None:
    records = runs("good0", out=tmp_path / "one") + runs("good1", "good2", out=tmp_path / "two")
    evaluate_runs(records, TEST)
    counts = [len(openings(tmp_path / folder)) for folder in ("one", "two")]
    assert counts == [1, 1]
    assert openings(tmp_path / "two")[0][1] == f"evaluation requested for {records[1].identity.run_id} and 1 more"


def test_the_test_set_stays_sealed_if_anything_is_invalid(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = runs("good0", out=tmp_path / "one") + runs("good1", out=tmp_path / "two")
    (records[1].folder / "best.safetensors").write_bytes(b"nothing")
    for evaluation in (TEST, TEST._replace(views="none")):
        with pytest.raises(RecordError, match="best weights"):
            evaluate_runs(records, evaluation)
    with pytest.raises(InputError, match="device"):
        evaluate_runs(records[:1], TEST._replace(device="abacus"))
    assert not list(tmp_path.rglob(TEST_OPENINGS_FILE))


def test_stored_scores_that_do_not_match_the_result_are_rejected(runs: Runs) -> None:
    records = runs("good0", "good1")
    evaluate_runs(records, TEST)
    one, other = (RunFolder(record.folder) for record in records)
    found, result = other.read_scores(), one.load().test
    assert found is not None
    assert result is not None
    assert found.correct != result.correct, "the test needs different results"
    one.write_scores(found)
    with pytest.raises(RecordError, match=f"is damaged: test.json has {result.correct} of 360"):
        evaluate_runs(read_runs([record.folder for record in records]), TEST)


def test_a_split_that_cannot_be_recreated_is_rejected(runs: Runs) -> None:
    (record,) = runs("good0")
    path = record.folder / "run.json"
    mapping = read_mapping(path)
    write_json(path, {**mapping, "data": {**mapping["data"], "split_fingerprint": "0" * 64}})
    with pytest.raises(RecordError, match=r"split of good0 = '0{64}': cannot be recreated"):
        evaluate_runs(read_runs([record.folder]), VALIDATION)


@pytest.mark.parametrize("evaluation", [VALIDATION, TEST])
def test_missing_or_different_data_are_reported(runs: Runs, tmp_path: Path, evaluation: EvaluationRequest) -> None:
    (record,) = runs("good0")

    def missing(name: str) -> DataSet:
        raise DataError("data", name, "no such file")

    with pytest.raises(
        DataError, match=r"data = 'digits': no such file; good0 was trained on it: give its location with --data"
    ):
        evaluate_runs([record], evaluation, load=missing)
    with pytest.raises(DataError, match=r"data = 'x': no such file$"):
        evaluate_runs([record], evaluation._replace(data="x"), load=missing)
    with pytest.raises(
        DataError, match=r"data = 'digits': is not the data set that good0 was trained on: its fingerprint is "
    ):
        evaluate_runs([record], evaluation, load=lambda _: other_digits())
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()


@pytest.mark.parametrize(
    ("evaluation", "classes", "size", "message"),
    [
        (TEST, 4, 8, "must have images of 1x8x8 in 10 classes for good0, not images of 1x8x8 in 4 classes"),
        (TEST, 10, 9, "must have images of 1x8x8 in 10 classes for good0, not images of 1x9x9 in 10 classes"),
        (VALIDATION, 10, 8, "is not the data set that good0 was trained on and has none of its validation images"),
    ],
)
def test_another_data_set_must_fit_the_network(
    runs: Runs, tmp_path: Path, evaluation: EvaluationRequest, classes: int, size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        evaluate_runs(
            runs("good0"), evaluation._replace(data="x"), load=lambda _: other_digits(classes=classes, size=size)
        )
    assert caught.value.field == "data"
    assert not (tmp_path / TEST_OPENINGS_FILE).exists()


def without_names(record: RunRecord, *, names: tuple[str, ...] | None = None) -> RunRecord:
    """Return the record with other class names, or none."""
    identity = record.identity
    data = identity.data.model_copy(update={"class_names": names})
    return record._replace(identity=identity.model_copy(update={"data": data}))


def test_stored_predictions_need_no_data_set(runs: Runs, digits: DataSet) -> None:
    kept = runs("good0")
    # Earlier versions stored no class names.
    records = [without_names(record) for record in kept]
    named = evaluate_runs(records, TEST, load=lambda _: replace(digits, class_names=tuple("abcdefghij")))[0]

    def missing(name: str) -> DataSet:
        raise DataError("data", name, "no such file")

    (result,) = evaluate_runs(records, TEST, load=missing)
    assert result.kept
    assert result.scores.probabilities.tolist() == named.scores.probabilities.tolist()
    assert named.class_names == tuple("abcdefghij")
    assert result.class_names == tuple("0123456789")
    named_itself = [without_names(record, names=tuple("qrstuvwxyz")) for record in kept]
    assert evaluate_runs(named_itself, TEST, load=missing)[0].class_names == tuple("qrstuvwxyz")


def test_folders_without_a_usable_run_are_rejected(runs: Runs, tmp_path: Path) -> None:
    good, copy, unfinished = runs("good0")[0].folder, tmp_path / "copy", tmp_path / "unfinished"
    runs("diverged")
    for target in (copy, unfinished):
        good.rename(target)
        runs("good0")
    (unfinished / "result.json").unlink()
    for path, message in [
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path, "contains no run"),
        (good / "run.json", "contains no run"),
        (unfinished, "is unfinished"),
        (tmp_path / "diverged", "has no result: the loss was not finite in epoch 1"),
    ]:
        with pytest.raises(RecordError, match=message) as caught:
            read_runs([good, path])
        assert caught.value.value == str(path) or str(path) in caught.value.field
    with pytest.raises(InputError, match=f"is given twice: it is the same run as {good}"):
        read_runs([good, copy])


def test_classes_of_another_data_set_are_matched_by_name(runs: Runs, tmp_path: Path) -> None:
    letters = tuple("abcdefghij")
    (record,) = (without_names(each, names=letters) for each in runs("good0"))
    plain, order = other_digits(), [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    other = replace(plain, class_names=tuple(letters[number] for number in order))
    (result,) = evaluate_runs([record], TEST._replace(data="others"), load=lambda _: other)
    _, labels = open_test_set(plain, tmp_path)
    # Class 0 of the other data set is called d, which is class 3 of the run.
    assert result.scores.labels.tolist() == [order[label] for label in labels.tolist()]
    assert result.class_names == letters
    # One that numbers them in another way is evaluated along with it.
    records = [record, *(without_names(each, names=letters[::-1]) for each in runs("good1"))]
    before = openings(tmp_path)
    results = evaluate_runs(records, TEST._replace(data="others"), load=lambda _: other)
    assert len(openings(tmp_path)) == len(before) + 1
    reversed_order = [9 - order[label] for label in labels.tolist()]
    assert results[0].scores.labels.tolist() == [order[label] for label in labels.tolist()]
    assert results[1].scores.labels.tolist() == reversed_order
    assert results[1].class_names == letters[::-1]
    with pytest.raises(InputError, match=r"was trained on other classes than good0, or in another order"):
        require_common_classes(records)
    require_common_classes([record, *runs("good2")])
    # In another spelling it is another class.
    spelled = replace(plain, class_names=tuple("abcdefghiJ"))
    before = openings(tmp_path)
    with pytest.raises(InputError, match=r"has no class 'j', which good0 was trained on; its classes: a, b, .*, J$"):
        evaluate_runs([record], TEST._replace(data="others"), load=lambda _: spelled)
    assert openings(tmp_path) == before
    # Numbers are no names: they stand for any.
    (unnamed,) = evaluate_runs(
        [record], TEST._replace(data="others"), load=lambda _: replace(plain, class_names=tuple("0123456789"))
    )
    assert unnamed.scores.labels.tolist() == labels.tolist()
