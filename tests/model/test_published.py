"""Published results against numbers copied from the paper, hand counts and the zoo; errors of invalid files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from scipy.stats import binomtest
from support import RunCommand

from budgetnet.cli.published_tables import print_contradictions, print_results
from budgetnet.common.errors import InputError
from budgetnet.model import published, zoo
from budgetnet.model.published import FACTS, PublishedResult
from budgetnet.model.published.contradiction import Contradictions, Layout
from budgetnet.statistics.intervals import correct_count, wilson_interval
from budgetnet.study.leaderboard import rank

FILES = sorted((Path(published.__file__).parent / "data" / "results").iterdir())

# Accuracy in per cent, images, parameters and their rounding, copied by hand from paper and notebook.
NUMBERS = {
    "ladder-small": (79, 10_000, 2_600_000, 100_000),
    "ladder-wide": (89, 10_000, 4_900_000, 100_000),
    "ladder-large-kernel": (90, 10_000, 4_200_000, 100_000),
    "reference": (91.41, 10_000, 4_662_346, 1),
    "ensemble": (85, None, None, 1),
    "leaking-validation": (97.98, 10_000, 4_662_346, 1),
    # Copied from the repositories of other teams of the same course.
    "nyu-dl-cerberus": (95.01, 10_000, 4_918_602, 1),
    "zbw-p": (95.41, 10_000, 2_818_122, 1),
    "zhoucailin": (92.64, 10_000, 4_469_578, 1),
}
TEAMS = {"nyu-dl-cerberus", "zbw-p", "zhoucailin"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_published_result_matches_the_paper(path: Path) -> None:
    result = PublishedResult.load(path)
    assert result.name == path.stem
    assert ("on GitHub" if result.name in TEAMS else "Inouye, Shah, Xhelollari: ") in result.source
    per_cent, images, params, unit = NUMBERS[result.name]
    assert result.accuracy == pytest.approx(per_cent / 100, abs=1e-12)
    assert (result.images, result.params, result.params_rounded_to) == (images, params, unit)

    written = yaml.safe_load(path.read_text())
    stated, inferred = written["stated"].keys(), written.get("inferred", {}).keys()
    assert not stated & inferred
    assert stated | inferred == {fact for fact in FACTS if written.get(fact) is not None}
    assert {*result.unknown} == {*FACTS} - stated - inferred

    if result.spec:
        assert abs(zoo.get(result.spec).params - (params or 0)) <= unit // 2
    if not result.accuracy_is_approximate:
        correct = result.accuracy * result.known_images
        assert correct == pytest.approx(correct_count(result.accuracy, result.known_images), abs=1e-6)
    if result.training_accuracy:
        # 40,000 of the 50,000 images are training images.
        assert result.training_accuracy * 40_000 == pytest.approx(39_298, abs=1e-6)


def test_results_lists_the_ladder_first() -> None:
    assert list(published.results()) == list(NUMBERS)
    assert [path.stem for path in FILES] == sorted(NUMBERS)
    rungs = [result.rung for result in published.results().values()]
    assert rungs == [1, 2, 3, 4, *[None] * 5]
    with_loss = [(result.loss, result.epoch, result.runs) for result in published.results().values() if result.loss]
    assert with_loss == [(0.315, 81, 1), (0.0575, 81, 1)]


def test_interval_of_the_reference_accuracy() -> None:
    reference = published.reference()
    correct = correct_count(reference.accuracy, reference.known_images)
    interval = wilson_interval(correct, reference.known_images)
    assert interval == pytest.approx((0.9084, 0.9194), abs=5e-5)
    expected = binomtest(9_141, 10_000).proportion_ci(0.95, method="wilson")
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_table1_matches_the_paper() -> None:
    rows = published.table1()
    assert rows[0] == ("Conv2d-1", (-1, 64, 28, 28), 3 * 9 * 64)
    assert rows[36] == ("Conv2d-37", (-1, 256, 4, 4), 25 * 256 * 256)
    assert rows[-1] == ("Linear-44", (-1, 10), 256 * 10 + 10)
    assert sum(row.params for row in rows) == published.reference().params


def stage(before: int, width: int) -> int:
    """Count a stage of one block: 5x5, 3x3 and the shortcut's 1x1 convolution, each with batch norm."""
    return (25 + 1) * before * width + 9 * width * width + 3 * 2 * width


def more_blocks(width: int) -> int:
    """Count a further block, which has an identity shortcut."""
    return (25 + 9) * width * width + 2 * 2 * width


BY_HAND: dict[tuple[int, ...], int] = {
    (64, 64, 128, 256, 256, 2, 2, 1, 1, 1): 4_662_346,
    (64, 64, 128, 256, 256, 2, 2, 2, 2, 2): 4_662_346 + more_blocks(128) + 2 * more_blocks(256),
    (64, 64, 128, 258, 258, 2, 2, 1, 1, 1): 4_662_346
    + (stage(128, 258) - stage(128, 256))
    + (stage(258, 258) - stage(256, 256))
    + 10 * 2,
}


def layouts() -> list[Layout]:
    statements = [statement for point in published.contradictions() for statement in point.statements]
    return [statement.layout for statement in statements if statement.layout]


def test_params_of_contradictory_layouts_match_hand_counts() -> None:
    for layout in layouts():
        spec = zoo.get("reference").replace(channels=layout.channels, blocks=layout.blocks)
        assert layout.params == spec.params == BY_HAND[(*layout.channels, *layout.blocks)]
    assert {(*layout.channels, *layout.blocks) for layout in layouts()} == BY_HAND.keys()


def test_contradictions_have_differing_statements() -> None:
    points = published.contradictions()
    assert [point.name for point in points] == [
        "channels",
        "blocks",
        "params",
        "accuracy",
        "restart",
        "early-stopping",
        "input-size",
    ]
    for point in points:
        assert len({statement.says for statement in point.statements}) > 1


EDITS: list[tuple[dict[str, Any], str, str]] = [
    ({"accuracy": 91.41}, "accuracy", "must be at most 1"),
    ({"claim": "accuracy"}, "claim", "must be 'test-accuracy', 'validation-accuracy' or 'ensemble-accuracy'"),
    ({"epochs": 84}, "epochs", "unknown field"),
    ({"source": " "}, "source", "must not be empty"),
    ({"schema_version": 2}, "schema_version", "must be 1"),
    ({"images": None}, "images", "is listed as stated or inferred, but has no value"),
    ({"training_accuracy": 0.98}, "training_accuracy", "must be listed as stated or as inferred"),
    (
        {"inferred": {"recipe": "code", "runs": "one", "loss": "?"}},
        "loss",
        "must be listed as stated or as inferred, not",
    ),
    ({"params": 4_662_346, "params_rounded_to": 100_000}, "params", "must be a multiple of params_rounded_to = 100000"),
    ({"name": "other"}, "name", "must be the file's name, reference"),
]


@pytest.mark.parametrize(("edit", "field", "rule"), EDITS, ids=[next(iter(edit)) for edit, _, _ in EDITS])
def test_invalid_file_is_rejected_in_one_line(edit: dict[str, Any], field: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.yaml"
    path.write_text(yaml.safe_dump({**published.reference().to_mapping(), **edit}))
    with pytest.raises(InputError) as caught:
        published.load_results(tmp_path)
    assert caught.value.field == f"{path}: {field}"
    assert caught.value.rule.startswith(rule)
    assert "\n" not in str(caught.value)


def test_rounding_requires_params() -> None:
    with pytest.raises(InputError, match=r"^params_rounded_to = 10: needs params"):
        PublishedResult(**{**published.get("ensemble").to_mapping(), "params_rounded_to": 10})


def test_names_of_contradictions_must_be_unique() -> None:
    point = published.contradictions()[0]
    with pytest.raises(InputError, match=r"contradictions\[1\]\.name = 'channels': must be unique"):
        Contradictions(source="a paper", contradictions=(point, point))


def test_accuracy_must_be_stated_by_the_source() -> None:
    mapping = published.reference().to_mapping()
    mapping["inferred"] = {"accuracy": mapping["stated"].pop("accuracy"), **mapping["inferred"]}
    with pytest.raises(InputError, match=r"^accuracy = 0\.9141: must be stated"):
        PublishedResult.from_mapping(mapping)


def test_unknown_result_suggests_the_closest_name() -> None:
    with pytest.raises(InputError, match=r"no such result; did you mean reference\?"):
        published.get("refrence")


def test_ranking_requires_a_reference_with_images_and_layout() -> None:
    with pytest.raises(InputError, match="'ensemble': has no known number of images"):
        rank([], comparable=True, reference=published.get("ensemble"))
    with pytest.raises(InputError, match="'ensemble': has no known layout"):
        _ = published.get("ensemble").known_spec
    (row,) = rank([], comparable=True, reference=published.get("ladder-wide"))
    assert (row.name, row.architecture, row.params, row.accuracy) == ("published", "ladder-wide", 4_903_242, 0.89)


def test_published_results_are_loaded_lazily() -> None:
    code = "import sys, budgetnet.cli.tables; print('budgetnet.model.published' in sys.modules)"
    code += "; import budgetnet.model.published as p; print(p.results.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n0\n"


def test_reproduce_list_prints_every_fact(tell: RunCommand) -> None:
    result = tell("reproduce", "list", "--json")
    assert (result.code, result.err) == (0, "")
    listed = {entry["name"]: entry for entry in json.loads(result.out)}
    assert list(listed) == list(NUMBERS)
    for path in FILES:
        # Fields omitted from a file are printed with their defaults.
        assert yaml.safe_load(path.read_text()).items() <= listed[path.stem].items()
        assert [fact for fact in FACTS if listed[path.stem][fact] is None] == listed[path.stem]["unknown"]
    points = json.loads(tell("reproduce", "list", "--contradictions", "--json").out)
    assert [point["name"] for point in points] == [point.name for point in published.contradictions()]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_width(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    output = Console(width=width, highlight=False, markup=False)
    print_results(output, list(published.results().values()))
    print_contradictions(output, published.contradictions())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    cells = [[cell.strip() for cell in line.split("│")[1:]] for line in printed.splitlines() if line.startswith("│")]
    rows = {row[0]: row[1:5] for row in cells if row[0] in NUMBERS}
    assert rows == {
        "ladder-small": ["test", "~79", "10,000", "~2.6M"],
        "ladder-wide": ["test", "~89", "10,000", "~4.9M"],
        "ladder-large-kernel": ["test", "~90", "10,000", "~4.2M"],
        "reference": ["test", "91.41", "10,000", "4,662,346"],
        "ensemble": ["ensemble", "~85", "-", "-"],
        "leaking-validation": ["validation", "97.98", "10,000", "4,662,346"],
        "nyu-dl-cerberus": ["test", "95.01", "10,000", "4,918,602"],
        "zbw-p": ["test", "95.41", "10,000", "2,818,122"],
        "zhoucailin": ["test", "92.64", "10,000", "4,469,578"],
    }
    for part in ("runs: the notebook holds one training", "source: Inouye", "4,714,278", "9,678,410"):
        assert part in printed


def test_reproduce_without_arguments_prints_help(tell: RunCommand) -> None:
    result = tell("reproduce")
    assert (result.code, result.err) == (2, "")
    assert "list" in result.out
