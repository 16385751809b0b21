"""What runs say of images, against networks run by hand, and when a test set is opened for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_support import STOPPED, Runs, by_hand, opened, other_digits, validation_rows
from support import snapshot

from budgetnet.common.errors import DataError, InputError, RecordError
from budgetnet.common.files import read_mapping, write_json
from budgetnet.data import DataSet, read_openings
from budgetnet.evaluation.evaluate import ask
from budgetnet.evaluation.run_data import Question, read_runs
from budgetnet.runs.recipe import Views
from budgetnet.runs.records import RunRecord
from budgetnet.runs.store import OPENINGS, RunFolder

TEST = Question("test", device="cpu")
VALIDATION = Question("validation", device="cpu")


def openings(folder: Path) -> list[tuple[str, str, int]]:
    return [(each["by"], each["reason"], each["count"]) for each in read_openings(folder / OPENINGS)]


@pytest.mark.parametrize("views", [None, "flip", "none", "flip-and-shifts"])
def test_validation_images_are_those_that_the_run_was_validated_on(
    runs: Runs, digits: DataSet, tmp_path: Path, views: Views | None
) -> None:
    records = runs("good0", "otherwise-split")
    answers = ask(records, VALIDATION._replace(views=views))
    for record, answer in zip(records, answers, strict=True):
        rows = validation_rows(digits, record)
        expected = by_hand(record, digits.train_images[rows], views=views or "flip")
        np.testing.assert_allclose(answer.scores.probabilities, expected, atol=1e-5)
        assert answer.scores.labels.tolist() == digits.train_labels[rows].tolist()
        assert (answer.part, answer.kept, answer.views) == ("validation", False, views or "flip")
        assert answer.class_names == digits.class_names
        if views in (None, "flip"):
            assert answer.scores.correct == record.result.validation_correct
            assert answer.remarks == []
    assert answers[0].images != answers[1].images
    assert not (tmp_path / OPENINGS).exists()


def test_a_run_that_leaks_is_asked_about_its_recipes_split_and_says_so(runs: Runs, digits: DataSet) -> None:
    (answer,) = ask(runs("leaking"), VALIDATION)
    rows = validation_rows(digits, answer.record)
    np.testing.assert_allclose(
        answer.scores.probabilities, by_hand(answer.record, digits.train_images[rows], views="flip"), atol=1e-5
    )
    assert answer.leaks
    assert answer.remarks[0].startswith("leaking: ")
    recorded = answer.record.result.validation_correct
    assert recorded != answer.scores.correct, "or this test could not see the remark"
    assert f"in its training {recorded} of 40 were right" in answer.remarks[1]
    (otherwise,) = ask([answer.record], VALIDATION._replace(views="none"))
    assert otherwise.scores.correct != recorded, "or this test could not see that it is no remark"
    assert len(otherwise.remarks) == 1, "judged in another way than in training"
    assert not ask([answer.record], TEST)[0].leaks


def test_a_run_that_was_stopped_is_asked_about_validation_images_alone(runs: Runs, tmp_path: Path) -> None:
    records = read_runs([each.folder for each in runs("good0", STOPPED)])
    assert ask(records, VALIDATION)[1].remarks == ["stopped behind epoch 1, before its end: others were better"]
    with pytest.raises(RecordError, match=r"was stopped before its end \(others were better\)") as caught:
        ask(records, TEST)
    assert caught.value.field == "run folder"
    assert not (tmp_path / OPENINGS).exists()


def test_the_test_set_is_opened_once_and_then_answers_are_kept(runs: Runs, digits: DataSet, tmp_path: Path) -> None:
    records = runs("good0", "good1")
    first = ask(records[:1], TEST)
    reason = f"asked for by hand: {records[0].identity.run_id}"
    assert openings(tmp_path) == [("evaluate", reason, 360)]
    images, labels = opened(digits, tmp_path)
    np.testing.assert_allclose(first[0].scores.probabilities, by_hand(records[0], images, views="flip"), atol=1e-5)
    assert first[0].scores.labels.tolist() == labels.tolist()
    assert first[0].record.test is not None
    assert (first[0].record.test.correct, first[0].record.test.reason) == (first[0].scores.correct, reason)
    both = ask(records, TEST._replace(by="ensemble"))
    assert [each.kept for each in both] == [True, False]
    assert [by for by, _, _ in openings(tmp_path)] == ["evaluate", "ensemble"]
    before = snapshot(tmp_path)
    (records[0].folder / "best.safetensors").unlink()
    (records[0].folder / "best.safetensors").touch()
    again = ask(records, TEST._replace(device="nonsense"))
    assert [each.kept for each in again] == [True, True]
    for each, earlier in zip(again, both, strict=True):
        assert each.scores.probabilities.tolist() == earlier.scores.probabilities.tolist()
    assert openings(tmp_path)[2:] == []
    assert {name for name, file in snapshot(tmp_path).items() if before[name] != file} == {"good0/best.safetensors"}


def test_mirror_images_that_the_recipe_has_not_are_another_question(
    runs: Runs, digits: DataSet, tmp_path: Path
) -> None:
    (record,) = runs("good0")
    kept = ask([record], TEST)[0]
    assert ask([record], TEST._replace(views="flip"))[0].kept, "as the recipe says"
    before = snapshot(record.folder)
    other = ask([record], TEST._replace(views="none"))[0]
    images, _ = opened(digits, tmp_path)
    np.testing.assert_allclose(other.scores.probabilities, by_hand(record, images, views="none"), atol=1e-5)
    assert np.abs(other.scores.probabilities - kept.scores.probabilities).max() > 1e-3
    assert (other.kept, other.views, other.foreign, other.remarks) == (False, "none", False, [])
    assert other.images == kept.images
    assert openings(tmp_path)[1][1].endswith(", without mirror images, on digits")
    assert len(openings(tmp_path)) == 2
    shifted = ask([record], TEST._replace(views="flip-and-shifts"))[0]
    expected = by_hand(record, images, views="flip-and-shifts")
    np.testing.assert_allclose(shifted.scores.probabilities, expected, atol=1e-5)
    assert openings(tmp_path)[2][1].endswith(", with mirror images and shifts, on digits")
    assert snapshot(record.folder) == before


def test_another_data_set_is_seen_as_the_network_knows_pixels(runs: Runs, digits: DataSet, tmp_path: Path) -> None:
    records = runs("good0", "good1")
    others = other_digits()
    question = TEST._replace(data="others")
    answers = ask(records, question, load=lambda _: others)
    images, labels = opened(others, tmp_path)
    for answer in answers:
        np.testing.assert_allclose(answer.scores.probabilities, by_hand(answer.record, images, views="flip"), atol=1e-5)
        assert answer.scores.labels.tolist() == labels.tolist()
        assert (answer.foreign, answer.kept, answer.class_names) == (True, False, others.class_names)
        assert answer.remarks == ["not the data set that it was trained on (digits)"]
        assert answer.record.test is None
    expected = f"asked for by hand: {records[0].identity.run_id} and 1 more, on others"
    assert openings(tmp_path) == [("evaluate", expected, 50)]
    ask(records, question, load=lambda _: others)
    assert len(openings(tmp_path)) == 2, "nothing of it is kept"


def test_the_same_images_under_another_name_are_the_runs_own(runs: Runs, digits: DataSet) -> None:
    # As CIFAR-10 in an image folder is normalised by its own statistics, the original by published ones.
    moved = replace(digits, name="moved", mean=(0.0,), std=(2.0,))
    records = runs("good0")
    for question in (VALIDATION, TEST):
        here = ask(records, question)[0]
        (records[0].folder / "test.json").unlink(missing_ok=True)
        (there,) = ask(records, question._replace(data="moved"), load=lambda _: moved)
        assert there.scores.probabilities.tolist() == here.scores.probabilities.tolist()
        assert (there.foreign, there.kept) == (False, False)
    assert ask(records, TEST._replace(data="moved"), load=lambda _: moved)[0].kept


def test_scores_that_an_earlier_version_did_not_keep_are_kept_from_then_on(runs: Runs, tmp_path: Path) -> None:
    (record,) = runs("good0")
    first = ask([record], TEST)[0]
    (record.folder / "test-scores.safetensors").unlink()
    before = (record.folder / "test.json").read_bytes()
    for kept in (False, True):
        (answer,) = ask(read_runs([record.folder]), TEST)
        assert answer.kept is kept
        assert answer.scores.probabilities.tolist() == first.scores.probabilities.tolist()
    assert len(openings(tmp_path)) == 2
    assert (record.folder / "test.json").read_bytes() == before
    (record.folder / "test-scores.safetensors").unlink()
    write_json(record.folder / "test.json", {**read_mapping(record.folder / "test.json"), "correct": 1})
    ask(read_runs([record.folder]), TEST)
    assert not (record.folder / "test-scores.safetensors").exists(), "they are not those of the result"


def test_every_folder_of_runs_keeps_its_own_record_of_openings(runs: Runs, tmp_path: Path) -> None:
    records = runs("good0", out=tmp_path / "one") + runs("good1", "good2", out=tmp_path / "two")
    ask(records, TEST)
    counts = [len(openings(tmp_path / folder)) for folder in ("one", "two")]
    assert counts == [1, 1]
    assert openings(tmp_path / "two")[0][1] == f"asked for by hand: {records[1].identity.run_id} and 1 more"


def test_nothing_is_opened_where_something_is_wrong(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = runs("good0", out=tmp_path / "one") + runs("good1", out=tmp_path / "two")
    (records[1].folder / "best.safetensors").write_bytes(b"nothing")
    for question in (TEST, TEST._replace(views="none")):
        with pytest.raises(RecordError, match="best weights"):
            ask(records, question)
    with pytest.raises(InputError, match="device"):
        ask(records[:1], TEST._replace(device="abacus"))
    assert not list(tmp_path.rglob(OPENINGS))


def test_kept_scores_that_the_result_was_not_made_from_are_damaged(runs: Runs) -> None:
    records = runs("good0", "good1")
    ask(records, TEST)
    one, other = (RunFolder(record.folder) for record in records)
    found, result = other.read_scores(), one.load().test
    assert found is not None
    assert result is not None
    assert found.correct != result.correct, "or the two could not be told apart"
    one.write_scores(found)
    with pytest.raises(RecordError, match=f"is damaged: test.json says {result.correct} of 360"):
        ask(read_runs([record.folder for record in records]), TEST)


def test_a_split_that_comes_out_otherwise_is_refused(runs: Runs) -> None:
    (record,) = runs("good0")
    path = record.folder / "run.json"
    mapping = read_mapping(path)
    write_json(path, {**mapping, "data": {**mapping["data"], "split_fingerprint": "0" * 64}})
    with pytest.raises(RecordError, match=r"split of good0 = '0{64}': cannot be made again"):
        ask(read_runs([record.folder]), VALIDATION)


@pytest.mark.parametrize("question", [VALIDATION, TEST])
def test_data_that_are_gone_or_others_are_told(runs: Runs, tmp_path: Path, question: Question) -> None:
    (record,) = runs("good0")

    def gone(name: str) -> DataSet:
        raise DataError("data", name, "no such file")

    with pytest.raises(DataError, match=r"data = 'digits': no such file; good0 was trained on it, --data says where"):
        ask([record], question, load=gone)
    with pytest.raises(DataError, match=r"data = 'x': no such file$"):
        ask([record], question._replace(data="x"), load=gone)
    with pytest.raises(DataError, match=r"data = 'digits': is not what good0 was trained on: its fingerprint is "):
        ask([record], question, load=lambda _: other_digits())
    assert not (tmp_path / OPENINGS).exists()


@pytest.mark.parametrize(
    ("question", "classes", "size", "message"),
    [
        (TEST, 4, 8, "must have images of 1x8x8 in 10 classes for good0, not images of 1x8x8 in 4 classes"),
        (TEST, 10, 9, "must have images of 1x8x8 in 10 classes for good0, not images of 1x9x9 in 10 classes"),
        (VALIDATION, 10, 8, "is not what good0 was trained on, so none of it are its validation images"),
    ],
)
def test_another_data_set_must_fit(
    runs: Runs, tmp_path: Path, question: Question, classes: int, size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ask(runs("good0"), question._replace(data="x"), load=lambda _: other_digits(classes=classes, size=size))
    assert caught.value.field == "--data"
    assert not (tmp_path / OPENINGS).exists()


def without_names(record: RunRecord, *, names: tuple[str, ...] | None = None) -> RunRecord:
    """The record with other names of classes, or none."""
    identity = record.identity
    data = identity.data.model_copy(update={"class_names": names})
    return record._replace(identity=identity.model_copy(update={"data": data}))


def test_kept_answers_need_no_data_set(runs: Runs, digits: DataSet) -> None:
    kept = runs("good0")
    # As written by versions that kept no names of classes.
    records = [without_names(record) for record in kept]
    named = ask(records, TEST, load=lambda _: replace(digits, class_names=tuple("abcdefghij")))[0]

    def gone(name: str) -> DataSet:
        raise DataError("data", name, "no such file")

    (answer,) = ask(records, TEST, load=gone)
    assert answer.kept
    assert answer.scores.probabilities.tolist() == named.scores.probabilities.tolist()
    assert named.class_names == tuple("abcdefghij")
    assert answer.class_names == tuple("0123456789")
    named_itself = [without_names(record, names=tuple("qrstuvwxyz")) for record in kept]
    assert ask(named_itself, TEST, load=gone)[0].class_names == tuple("qrstuvwxyz")


def test_what_is_no_run_or_came_to_nothing_cannot_be_asked(runs: Runs, tmp_path: Path) -> None:
    good, copy, unfinished = runs("good0")[0].folder, tmp_path / "copy", tmp_path / "unfinished"
    runs("diverged")
    for target in (copy, unfinished):
        good.rename(target)
        runs("good0")
    (unfinished / "result.json").unlink()
    for path, message in [
        (tmp_path / "nowhere", "contains no run"),
        (tmp_path, "contains no run"),
        (good / "run.json", "contains no run"),
        (unfinished, "is unfinished"),
        (tmp_path / "diverged", "came to no result: the loss was no finite number in epoch 1"),
    ]:
        with pytest.raises(RecordError, match=message) as caught:
            read_runs([good, path])
        assert caught.value.value == str(path) or str(path) in caught.value.field
    with pytest.raises(InputError, match=f"stands twice: it is the same run as {good}"):
        read_runs([good, copy])
