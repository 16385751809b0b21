"""Comparisons and ensembles against scikit-learn, statsmodels and counts in plain code."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from evaluation_support import Runs
from html_support import read
from sklearn.metrics import accuracy_score, log_loss
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping, write_json
from budgetnet.evaluation.results import (
    Confusion,
    EvaluatedRun,
    compare,
    ensemble_result,
    most_frequent_confusions,
    require_common_images,
)
from budgetnet.evaluation.run_data import read_runs
from budgetnet.runs.metrics import Scores
from budgetnet.runs.records import RunRecord
from budgetnet.visualization.html import evaluations_html


def random_scores(images: int, seed: int, *, labels: Any = None) -> Scores:
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(0).integers(0, 3, images) if labels is None else labels
    return Scores(generator.dirichlet(np.ones(3), images), truth)


def exact_p(first: Scores, second: Scores) -> tuple[int, int, float]:
    """Return discordant counts, counted image by image, and statsmodels' p-value."""
    table = [[0, 0], [0, 0]]
    for one, other in zip(first.right.tolist(), second.right.tolist(), strict=True):
        table[not one][not other] += 1
    return table[0][1], table[1][0], float(statsmodels_mcnemar(table, exact=True).pvalue)


def evaluated(record: RunRecord, scores: Scores, images: str) -> EvaluatedRun:
    return EvaluatedRun(record, scores, "validation", images, ("a", "b", "c"), views="flip", kept=False)


def test_every_pair_on_the_same_images_is_compared_with_holms_correction(runs: Runs) -> None:
    records = runs("good0", "good1", "good2", "otherwise-split")
    scores = [random_scores(60, seed) for seed in range(4)]
    places = ["here", "there", "here", "here"]
    found = compare([evaluated(*each) for each in zip(records, scores, places, strict=True)])
    pairs = [(0, 2), (0, 3), (2, 3)]
    assert [(each.first, each.second) for each in found] == [
        (str(records[one].folder), str(records[other].folder)) for one, other in pairs
    ]
    expected = [exact_p(scores[one], scores[other]) for one, other in pairs]
    corrected = multipletests([p_value for _, _, p_value in expected], method="holm")[1]
    for each, (only_first, only_second, p_value), adjusted, (one, other) in zip(
        found, expected, corrected, pairs, strict=True
    ):
        assert each.outcome.mcnemar[:2] == (only_first, only_second)
        assert each.outcome.mcnemar.p_value == pytest.approx(p_value)
        assert each.adjusted_p == pytest.approx(adjusted)
        difference = scores[one].accuracy - scores[other].accuracy
        assert each.outcome.difference == pytest.approx(difference)
        mapping = json.loads(json.dumps(each.to_mapping(), allow_nan=False))
        assert mapping["interval"][0] <= mapping["difference"] <= mapping["interval"][1]
        assert (mapping["p"], mapping["p_holm"]) == (each.outcome.mcnemar.p_value, each.adjusted_p)
    assert compare([evaluated(records[0], scores[0], "here")]) == []


def test_a_small_p_value_is_not_shown_as_zero_in_a_notebook(runs: Runs) -> None:
    labels = np.arange(60) % 3
    right, wrong = (Scores(np.eye(3)[(labels + shift) % 3], labels) for shift in (0, 1))
    pair = [
        evaluated(record, scores, "here") for record, scores in zip(runs("good0", "good1"), (right, wrong), strict=True)
    ]
    assert read(evaluations_html(pair)).cells[-1] == "< 0.001"


def test_an_ensemble_and_its_members(runs: Runs) -> None:
    records = runs("good0", "good1", "good2")
    members = [random_scores(200, seed) for seed in range(3)]
    result = ensemble_result(list(zip(records, members, strict=True)))
    labels, mean = members[0].labels, np.mean([each.probabilities for each in members], axis=0)
    np.testing.assert_array_equal(result.scores.probabilities, mean)
    accuracies = [accuracy_score(labels, each.probabilities.argmax(axis=1)) for each in members]
    losses = [log_loss(labels, each.probabilities) for each in members]
    assert result.scores.accuracy == pytest.approx(accuracy_score(labels, mean.argmax(axis=1)))
    assert result.mean_accuracy == pytest.approx(sum(accuracies) / 3)
    assert result.mean_loss == pytest.approx(sum(losses) / 3)
    assert result.best == accuracies.index(max(accuracies))
    assert (result.params, result.macs) == (3 * records[0].identity.spec.params, 3 * records[0].identity.spec.macs)
    expected = [exact_p(result.scores, each) for each in members]
    assert [each.outcome.mcnemar[:2] for each in result.comparisons] == [each[:2] for each in expected]
    corrected = multipletests([p_value for _, _, p_value in expected], method="holm")[1]
    assert [each.adjusted_p for each in result.comparisons] == pytest.approx(list(corrected))
    mapping = json.loads(json.dumps(result.to_mapping(), allow_nan=False))
    assert [each["accuracy"] for each in mapping["members"]] == pytest.approx(accuracies)
    assert [each["run"] for each in mapping["members"]] == ["good0", "good1", "good2"]
    assert mapping["mean"]["ece"] == pytest.approx(sum(each["ece"] for each in mapping["members"]) / 3)
    assert mapping["ensemble"]["correct"] == int((mean.argmax(axis=1) == labels).sum())
    folders = [str(record.folder) for record in records]
    assert mapping["best_member"] == folders[result.best]
    assert [(each["first"], each["second"]) for each in mapping["comparisons"]] == [
        ("ensemble", folder) for folder in folders
    ]


def test_the_lower_loss_decides_between_equally_accurate_members(runs: Runs) -> None:
    labels = np.zeros(4, int)
    members = [Scores(np.tile([high, 1 - high], (4, 1)), labels) for high in (0.6, 0.9, 0.8)]
    assert ensemble_result(list(zip(runs("good0", "good1", "good2"), members, strict=True))).best == 1


def test_an_ensemble_needs_two_distinct_runs(runs: Runs) -> None:
    records = runs("good0", "good1")
    scores = random_scores(9, 0)
    with pytest.raises(InputError, match="at least two runs"):
        ensemble_result([(records[0], scores)])
    with pytest.raises(InputError, match="is given twice"):
        ensemble_result([(records[0], scores), (records[1], scores), (records[0], scores)])
    with pytest.raises(InputError, match=r"members\[1\].labels"):
        ensemble_result([(records[0], scores), (records[1], random_scores(9, 1, labels=(scores.labels + 1) % 3))])


def test_members_must_have_the_same_images(runs: Runs) -> None:
    records = runs("good0", "good1", "otherwise-split")
    require_common_images(records[:2], "validation")
    require_common_images(records, "test")
    with pytest.raises(InputError, match=r"otherwise-split.* has a different split than good0.* --on test"):
        require_common_images(records, "validation")
    path = records[1].folder / "run.json"
    mapping = read_mapping(path)
    write_json(path, {**mapping, "data": {**mapping["data"], "fingerprint": "0" * 64}})
    for part in ("validation", "test"):
        with pytest.raises(InputError, match=r"good1.* was trained on a different data set than good0"):
            require_common_images(read_runs([each.folder for each in records[:2]]), part)


def test_the_most_frequent_confusions_come_first() -> None:
    # True to predicted: a to b twice, b to a twice, c to a once; a is correct once, c three times.
    truth, predicted = [0, 0, 0, 1, 1, 2, 2, 2, 2], [1, 1, 0, 0, 0, 0, 2, 2, 2]
    scores = Scores(np.eye(3)[predicted], np.array(truth))
    expected = [Confusion("a", "b", 2, 2 / 3), Confusion("b", "a", 2, 1.0), Confusion("c", "a", 1, 1 / 4)]
    assert most_frequent_confusions(scores, "abc", most=9) == expected
    assert most_frequent_confusions(scores, "abc", most=1) == expected[:1]
