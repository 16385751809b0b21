"""The summary against the paper's Table 1, as it was printed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from budgetnet.common.errors import InputError
from budgetnet.model import zoo
from budgetnet.model.published import table1
from budgetnet.model.spec import ModelSpec


@pytest.fixture(scope="module")
def published() -> list[tuple[str, list[int], int]]:
    """Layer, output shape and parameters of each row that the paper printed."""
    return [(row.layer, list(row.output_shape), row.params) for row in table1()]


def test_published_table_is_whole(published: list[tuple[str, list[int], int]]) -> None:
    assert len(published) == 44
    assert sum(params for _, _, params in published) == 4_662_346


def test_summary_is_the_published_table(published: list[tuple[str, list[int], int]]) -> None:
    summary = zoo.get("reference").summary(input_size=28)
    assert [(row.layer, list(row.output_shape), row.cost.params) for row in summary.rows] == published
    assert summary.total.params == 4_662_346
    assert summary.input_shape == (3, 28, 28)


def test_command_prints_the_published_table(published: list[tuple[str, list[int], int]]) -> None:
    command = [sys.executable, "-m", "budgetnet", "summary", "reference", "--input-size", "28"]
    printed = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [(row["layer"], row["output_shape"], row["params"]) for row in printed["layers"]] == published
    assert printed["params"] == 4_662_346
    assert [row["type"] for row in printed["layers"]] == [layer.split("-")[0] for layer, _, _ in published]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in text[1:-1]] == [layer for layer, _, _ in published]
    assert text[-1].split()[:2] == ["Total", "4,662,346"]


def test_reference_at_its_own_size_costs_what_was_counted_by_hand() -> None:
    summary = zoo.get("reference").summary()
    assert summary.total.macs == 793_446_912
    # 64 maps of 32x32 before and in the first two stages (9 convolutions), then three a stage, then the classes.
    elements = 9 * 64 * 32**2 + 3 * 128 * 16**2 + 3 * 256 * 8**2 + 3 * 256 * 4**2 + 10
    assert summary.total.activations == elements


def test_text_names_every_layer_with_shape_and_counts() -> None:
    lines = str(ModelSpec.resnet(channels=[4], num_classes=3).summary()).splitlines()
    assert lines[0].split() == ["Layer", "Output", "shape", "Parameters", "MACs"]
    assert lines[1].split() == ["Conv2d-1", "[-1,", "4,", "32,", "32]", "108", "110,592"]
    assert lines[-2].split() == ["Linear-8", "[-1,", "3]", "15", "12"]
    assert lines[-1].split() == ["Total", "435", "405,516"]
    assert len({len(line) for line in lines}) == 1


def test_repr_is_the_table_that_a_notebook_prints() -> None:
    summary = zoo.get("resnet20").summary()
    assert repr(summary) == str(summary)


def test_a_size_too_small_for_the_strides_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        zoo.get("reference").summary(input_size=2)
    assert caught.value.field == "stages[3].stride"
