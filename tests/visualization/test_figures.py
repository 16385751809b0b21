"""Figures: tables compared with hand counts and source files, and traces with the tables."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures_support import HOSTILE, RUN, curved, forest_rows, texts
from hypothesis import given
from strategies import many_examples, specs

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.metrics import Calibration, CalibrationBin
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.runs.recipe import LEAKAGE_WARNING
from budgetnet.runs.store import RunFolder
from budgetnet.visualization.figures import (
    ForestRow,
    accuracy_curves,
    collect_curves,
    confusion,
    confusion_cells,
    forest,
    loss_curves,
    outline,
    outline_rows,
    reliability,
)
from budgetnet.visualization.figures.curves import describe_course
from budgetnet.visualization.figures.style import blank_figure, listed


def test_the_outline_of_the_reference_is_what_was_counted_by_hand() -> None:
    rows = outline_rows(zoo.reference)
    pair = ("conv 5x5, 64 → 64", "conv 3x3, 64 → 64")
    # Two convolutions without bias and two norms a block; where the shape changes, a 1x1 convolution and its norm too.
    flat = 2 * (64 * 64 * (25 + 9) + 4 * 64)
    changing = [
        narrow * wide * 25 + wide * wide * 9 + 4 * wide + narrow * wide + 2 * wide
        for narrow, wide in ((64, 128), (128, 256), (256, 256))
    ]
    assert [(row.part, row.blocks, row.steps, row.shortcut, row.output, row.params) for row in rows] == [
        ("stem", 0, ("conv 3x3, 3 → 64", "norm, relu"), "", (64, 32, 32), 3 * 9 * 64 + 128),
        ("stage 1", 2, pair, "identity", (64, 32, 32), flat),
        ("stage 2", 2, pair, "identity", (64, 32, 32), flat),
        *(
            (
                f"stage {number}",
                1,
                (f"conv 5x5, {narrow} → {wide}, stride 2", f"conv 3x3, {wide} → {wide}"),
                "projection 1x1, stride 2",
                (wide, side, side),
                params,
            )
            for number, narrow, wide, side, params in zip(
                (3, 4, 5), (64, 128, 256), (128, 256, 256), (16, 8, 4), changing, strict=True
            )
        ),
        ("head", 0, ("global average pooling", "linear, 256 → 10"), "", (10, 1, 1), 2570),
    ]
    assert sum(row.params for row in rows) == 4_662_346


def test_blocks_that_differ_have_boxes_of_their_own() -> None:
    spec = ModelSpec.resnet(
        channels=[8, 16],
        blocks=[1, 4],
        block="preact",
        groups=4,
        squeeze_excitation_ratio=0.25,
        shortcut={"kind": "average-pool"},
        head={"dropout": 0.25, "pooling": "max"},
        activation="leaky_relu",
    )
    rows = {(row.part, row.blocks): row for row in outline_rows(spec)}
    assert list(rows) == [("stem", 0), ("stage 1", 1), ("stage 2", 1), ("stage 2", 3), ("head", 0)]
    assert rows["stem", 0].steps == ("conv 3x3, 3 → 8",)
    first, others = rows["stage 2", 1], rows["stage 2", 3]
    assert first.steps[0] == "conv 3x3, 8 → 16, stride 2, 4 groups"
    assert first.steps[-1] == "squeeze-and-excitation, 4 hidden"
    assert (first.shortcut, others.shortcut) == ("average pool, stride 2, conv 1x1", "identity")
    assert rows["head", 0].steps == ("norm, leaky relu", "global max pooling", "dropout 0.25", "linear, 16 → 10")


@many_examples
@given(specs())
def test_the_boxes_of_an_outline_hold_every_parameter_and_every_block(spec: ModelSpec) -> None:
    rows = outline_rows(spec)
    assert sum(row.params for row in rows) == spec.params
    for number, stage in enumerate(spec.stages, 1):
        assert sum(row.blocks for row in rows if row.part == f"stage {number}") == stage.blocks


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_an_outline_has_room_for_all_its_words_and_no_box_lies_on_another(count: int, block: str) -> None:
    spec = ModelSpec.resnet(
        channels=[64 * 2**stage for stage in range(count)],
        blocks=[1 + stage % 3 for stage in range(count)],
        strides=[1, *([2] * min(count - 1, 4)), *([1] * (count - 5))][:count],
        block=block,
        groups=8,
        squeeze_excitation_ratio=0.25,
    )
    figure = outline(spec)
    boxes = [shape for shape in figure.layout.shapes if shape.type == "rect" and shape.fillcolor == "#FFFFFF"]
    rows = outline_rows(spec)
    assert len(boxes) == len(rows)
    assert all(above.y1 < below.y0 for above, below in pairwise(boxes))
    arrows, sums = figure.data
    assert len(arrows.y) == count + 3
    ends = [box.y1 for box, row in zip(boxes, rows, strict=True) if row.shortcut]
    assert all(end < place < end + 20 for end, place in zip(ends, sums.y, strict=True))
    written = " ".join(" ".join(texts(figure)).replace("\N{NO-BREAK SPACE}", " ").split())
    for box, row in zip(boxes, rows, strict=True):
        inside = [note for note in figure.layout.annotations if box.y0 < note.y < box.y1 and note.x < box.x1]
        assert len(inside) >= len(row.steps) + (row.blocks > 1)
        assert all(len(note.text) <= 35 for note in inside if "<b>" not in note.text)
        assert min(later.y - note.y for note, later in pairwise(inside)) >= 16
        assert all(step in written for step in row.steps)
    stages = {row.part for row in rows}
    sums = {part: sum(row.params for row in rows if row.part == part) for part in stages}
    assert all(f"{params:,} parameters" in texts(figure) for params in sums.values())
    assert figure.layout.height - figure.layout.margin.t - figure.layout.margin.b == figure.layout.yaxis.range[0]
    assert f"{spec.params:,} parameters in all" in figure.layout.meta["alt"]


def columns(path: Path) -> dict[str, list[float]]:
    with (path / "curves.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {key: [float(row[key]) for row in rows] for key in rows[0]}


@pytest.mark.parametrize(("measure", "scale", "draw"), [("accuracy", 100, accuracy_curves), ("loss", 1, loss_curves)])
def test_the_curves_of_a_run_are_those_of_its_file(measure: Any, scale: int, draw: Any) -> None:
    record, file = RunFolder(RUN).load(weights=False), columns(RUN)
    curves = collect_curves(record, measure=measure)
    (curve,) = curves.runs
    assert (curves.mean, curves.restarts, curve.best_epoch) == (None, (), record.result.best_epoch)
    assert list(curve.epochs) == file["epoch"]
    assert list(curve.training) == file[f"train_{measure}"]
    assert list(curve.validation) == file[f"validation_{measure}"]
    figure = draw(record)
    for name in ("training", "validation"):
        (trace,) = [trace for trace in figure.data if trace.name == name]
        column = file[f"{'train' if name == 'training' else name}_{measure}"]
        assert (list(trace.x), list(trace.y)) == (file["epoch"], [scale * value for value in column])
    (best,) = [trace for trace in figure.data if trace.name == "best epoch"]
    lowest = file["validation_loss"].index(min(file["validation_loss"]))
    assert (list(best.x), list(best.y)) == ([lowest + 1], [scale * file[f"validation_{measure}"][lowest]])


def test_seeds_are_averaged_as_far_as_each_of_them_goes() -> None:
    short = curved(seed=1, losses=[(3.0, 2.0), (2.0, 1.0)], cycles=[1, 1], best=2)
    long = curved(seed=0, losses=[(1.0, 4.0), (1.0, 3.0), (0.5, 8.0)], cycles=[1, 1, 2], best=2)
    curves = collect_curves([short, long], measure="loss")
    assert [curve.seed for curve in curves.runs] == [0, 1]
    assert curves.mean is not None
    assert curves.mean[:4] == (None, (1, 2), (2.0, 1.5), (3.0, 2.0))
    assert curves.restarts == (2,)
    figure = loss_curves([short, long])
    lines = {trace.name: list(trace.y) for trace in figure.data}
    assert lines["validation, seed 0"] == [4.0, 3.0, 8.0]
    assert lines["validation, mean"] == [3.0, 2.0]
    assert lines["best epochs"] == [3.0, 1.0]
    widths = {trace.name: trace.line.width for trace in figure.data}
    assert widths["training, seed 1"] < widths["training, mean"]
    assert [(shape.x0, shape.x1, shape.name) for shape in figure.layout.shapes] == [(2, 2, "end of a cycle")]


def test_a_loss_that_left_the_finite_numbers_is_a_gap_without_a_best_epoch() -> None:
    figure = loss_curves(curved(seed=0, losses=[(2.0, 2.5), (float("nan"), float("inf"))], cycles=[1, 1], best=None))
    assert [list(trace.y) for trace in figure.data] == [[2.0, None], [2.5, None], []]
    assert "best by" not in figure.layout.meta["alt"]


@pytest.mark.parametrize("draw", [accuracy_curves, loss_curves])
def test_what_has_to_be_known_stands_with_the_title_and_in_the_words(draw: Any) -> None:
    sound = RunFolder(RUN).load(weights=False)
    recipe = named_recipe("as-run")
    leaking = sound._replace(identity=sound.identity.model_copy(update={"recipe": recipe}))
    for record, note, leaks in ((sound, "seen on a Sunday", False), (leaking, None, True), (leaking, "seen", True)):
        figure = draw(record, note=note)
        places = [
            figure.layout.title.subtitle.text.replace("<br>", " "),
            *(figure.layout.meta[key] for key in ("note", "alt")),
        ]
        assert [LEAKAGE_WARNING in place for place in places] == [leaks] * 3
        assert all((note or "") in place for place in places)


def test_only_runs_that_differ_in_their_seed_share_a_figure() -> None:
    one = curved(seed=0, losses=[(1.0, 1.0)], cycles=[1], best=1)
    recipe = one.identity.recipe.model_copy(update={"momentum": 0.5})
    other = one._replace(identity=one.identity.model_copy(update={"recipe": recipe, "seed": 1}))
    for runs, rule in (([one, other], "nothing but its seed"), ([one, one], "differ"), ([], "at least one")):
        with pytest.raises(InputError, match=rule):
            collect_curves(runs, measure="loss")


def test_a_forest_shows_each_kind_by_colour_and_by_mark() -> None:
    figure = forest(forest_rows())
    points = {trace.name: trace for trace in figure.data if trace.name != "interval"}
    assert {name: list(trace.x) for name, trace in points.items()} == {
        "beyond noise": pytest.approx([-1.25, 0.75]),
        "within noise": pytest.approx([0.5]),
        "not tested, no interval": pytest.approx([0.25]),
        "beyond noise, no interval": pytest.approx([1.0]),
    }
    lines = [end for trace in figure.data if trace.name == "interval" for end in trace.x if end is not None]
    assert lines == pytest.approx([-2.0, -0.5, 0.25, 1.25, -0.25, 1.25])
    beyond, within, single, alike = points.values()
    assert beyond.marker.color == alike.marker.color
    assert len({trace.marker.color for trace in (beyond, within, single)}) == 3
    assert len({trace.marker.symbol for trace in points.values()}) == 4
    assert [trace.marker.symbol.endswith("-open") for trace in points.values()] == [False, False, True, True]
    low, high = figure.layout.xaxis.range
    assert low < -2.0 < 1.25 < high
    written = texts(figure)
    names = ("no cutout", "wide", "&lt;b&gt;bold&lt;/b&gt; &amp; x", "alone", "all seeds alike", "huge")
    assert [text for text in written if text.startswith("<b>")] == [f"<b>{name}</b>" for name in names]
    assert "+0.50 [-0.25, +1.25]" in written
    assert "over budget by 1" in written
    assert written.count("no result") == 1
    assert figure.layout.meta["alt"] == (
        "Differences of 6 variants to the base, in points of accuracy: beyond noise: no cutout -1.25 [-2.00, -0.50], "
        "wide +0.75 [+0.25, +1.25], all seeds alike +1.00; 1 within noise; 1 not tested, no interval; "
        "no result: huge (over budget by 1)."
    )


def test_an_interval_that_does_not_hold_its_point_is_drawn_as_it_is() -> None:
    # As bootstrapped ones may, of few and lopsided differences.
    line, point = forest([ForestRow("a", 3, 0.03, 0.035, 0.04, True, None, "")]).data
    assert list(line.x) == [pytest.approx(3.5), pytest.approx(4.0), None]
    assert list(point.x) == pytest.approx([3.0])


def test_zero_is_on_a_forest_even_where_all_differences_lie_on_one_side() -> None:
    figure = forest([ForestRow("a", 3, 0.03, 0.02, 0.04, True, None, "")])
    assert figure.layout.xaxis.range[0] < 0
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.name == "zero"] == [(0, 0)]
    assert forest([]).layout.meta["alt"].startswith("Differences of 0 variants")


@pytest.mark.parametrize(
    ("difference", "low", "high"), [(0.1, 0.0, None), (0.1, None, 0.2), (None, 0.1, 0.2), (0.1, 0.1, 0.05)]
)
def test_an_interval_without_its_difference_is_refused(difference: Any, low: Any, high: Any) -> None:
    with pytest.raises(InputError, match=r"rows\[x\]"):
        forest([ForestRow("x", 2, difference, low, high, None, None, "")])


def test_a_confusion_matrix_keeps_its_counts_and_its_sides() -> None:
    matrix = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]])
    names = ["cat", "<b>", "dog"]
    cells = confusion_cells(matrix, names)
    assert cells[1] == ("cat", "<b>", 2, 0.2)
    assert cells[3] == ("<b>", "cat", 1, 0.2)
    assert cells[8] == ("dog", "dog", 0, 0.0)
    figure = confusion(matrix, names)
    (trace,) = figure.data
    assert [list(row) for row in trace.text] == matrix.tolist()
    assert [list(row) for row in trace.z] == [[80, 20, 0], [20, 80, 0], [0, 0, 0]]
    assert list(figure.layout.yaxis.ticktext) == ["cat", "&lt;b&gt;", "dog"]
    assert (figure.layout.yaxis.title.text, figure.layout.yaxis.autorange) == ("true class", "reversed")
    assert figure.layout.meta["alt"] == (
        "Of 15 images 12, 80 %, are on the diagonal, taken for what they are; "
        "most often, 2 times, cat is taken for <b>."
    )


def test_many_classes_are_drawn_without_numbers() -> None:
    figure = confusion(np.eye(50, dtype=int), [str(number) for number in range(50)])
    assert figure.data[0].texttemplate is None
    assert len(figure.layout.xaxis.ticktext) <= 20


@pytest.mark.parametrize("matrix", [[[1, 2]], [[1, 2], [3]], [[1]], [[1, 2], [3, -1]], [[1, 2], [3, 0.5]], []])
def test_invalid_confusion_matrix_is_rejected(matrix: Any) -> None:
    with pytest.raises(InputError, match="matrix"):
        confusion(matrix, ["a", "b"])


def test_a_reliability_diagram_shows_accuracy_confidence_and_counts() -> None:
    # Both filled bins are an eighth apart from what they claim, in opposite directions.
    bins = [
        CalibrationBin(0.0, 0.5, 8, 0.375, 0.5),
        CalibrationBin(0.5, 0.75, 0, None, None),
        CalibrationBin(0.75, 1.0, 24, 0.875, 0.75),
    ]
    figure = reliability(Calibration(0.125, bins))
    accuracy, confidence, line, images = figure.data
    assert (list(accuracy.x), list(accuracy.width)) == ([25, 62.5, 87.5], [50, 25, 25])
    assert (list(confidence.x), list(confidence.y)) == ([37.5, None, 87.5], [50, None, 75])
    assert list(accuracy.y) == list(confidence.y)
    assert (list(line.x), list(line.y)) == ([0, 100], [0, 100])
    assert (list(images.y), images.yaxis) == ([8, 0, 24], "y2")
    assert figure.layout.meta["alt"] == (
        "Over 32 images in 3 bins the mean confidence is 75.00 % and the accuracy 68.75 %: on the whole too sure; "
        "within bins they differ by 12.50 points on average."
    )


def test_titles_are_parted_into_lines_that_fit_and_stay_text() -> None:
    figure = blank_figure(title=HOSTILE, note=f"{HOSTILE} " * 9, alt="x", height=100, width=400)
    lines = figure.layout.title.subtitle.text.split("<br>")
    assert len(lines) > 1
    assert all("<" not in line for line in lines)
    assert figure.layout.margin.t >= 17 * len(lines) + 22
    assert figure.layout.height == 100 + figure.layout.margin.t


@pytest.mark.parametrize(
    ("parts", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_words_are_joined_as_english_list(parts: list[str], text: str) -> None:
    assert listed(parts) == text


def test_accuracies_in_words_have_the_decimals_of_their_images() -> None:
    curves = collect_curves(RunFolder(RUN).load(weights=False), measure="accuracy")
    few = curves._replace(images={"training": 1_149, "validation": 288})
    assert re.search(
        r"training accuracy goes from \d+\.\d\d % to .* and validation accuracy goes from \d+\.\d % to \d+\.\d %; .* "
        r"with \d+\.\d % on the validation images$",
        describe_course(few),
    )
