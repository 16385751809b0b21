"""Summary tables against the paper's Table 1 and hand counts."""

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
    """Return layer, output shape and parameters of each row of the paper's Table 1."""
    return [(row.layer, list(row.output_shape), row.params) for row in table1()]


def test_published_table_is_complete(published: list[tuple[str, list[int], int]]) -> None:
    assert len(published) == 44
    assert sum(params for _, _, params in published) == 4_662_346


def test_summary_matches_the_published_table(published: list[tuple[str, list[int], int]]) -> None:
    summary = zoo.get("reference").summary(input_size=28)
    assert [(row.layer, list(row.output_shape), row.cost.params) for row in summary.rows] == published
    assert summary.total.params == 4_662_346
    assert summary.input_shape == (3, 28, 28)


def test_summary_command_prints_the_published_table(published: list[tuple[str, list[int], int]]) -> None:
    command = [sys.executable, "-m", "budgetnet", "summary", "reference", "--input-size", "28"]
    printed = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [(row["layer"], row["output_shape"], row["params"]) for row in printed["layers"]] == published
    assert printed["params"] == 4_662_346
    assert [row["type"] for row in printed["layers"]] == [layer.split("-")[0] for layer, _, _ in published]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in text[1:-1]] == [layer for layer, _, _ in published]
    assert text[-1].split()[:2] == ["Total", "4,662,346"]


def test_cost_of_the_reference_matches_hand_counts() -> None:
    summary = zoo.get("reference").summary()
    assert summary.total.macs == 793_446_912
    # Nine convolutions with 64 maps of 32x32 in stem and first two stages, three in each later stage, and the classes.
    elements = 9 * 64 * 32**2 + 3 * 128 * 16**2 + 3 * 256 * 8**2 + 3 * 256 * 4**2 + 10
    assert summary.total.activations == elements


def test_summary_text() -> None:
    lines = str(ModelSpec.resnet(channels=[4], num_classes=3).summary()).splitlines()
    assert lines[0].split() == ["Layer", "Output", "shape", "Parameters", "MACs"]
    assert lines[1].split() == ["Conv2d-1", "[-1,", "4,", "32,", "32]", "108", "110,592"]
    assert lines[-2].split() == ["Linear-8", "[-1,", "3]", "15", "12"]
    assert lines[-1].split() == ["Total", "435", "405,516"]
    assert len({len(line) for line in lines}) == 1


def test_summary_repr_equals_its_text() -> None:
    summary = zoo.get("resnet20").summary()
    assert repr(summary) == str(summary)


def test_too_small_input_size_is_rejected() -> None:
    with pytest.raises(InputError) as caught:
        zoo.get("reference").summary(input_size=2)
    assert caught.value.field == "stages[3].stride"
