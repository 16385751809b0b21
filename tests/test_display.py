"""Notebook tables: the numbers are in them, and no text in them is markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from budgetnet import zoo
from budgetnet.spec import ModelSpec

HOSTILE = "<script>alert('1')</script>&amp;\"</td>"


class Reader(HTMLParser):
    """Collects tags and cells as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the signature is HTMLParser's
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells:
            self.cells[-1] += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


def test_spec_shows_cost_settings_and_stages() -> None:
    reader = read(zoo.get("reference")._repr_html_())
    for part in (
        "reference",
        "4,662,346 parameters",
        "793,446,912 MACs",
        "basic blocks",
        "input 3x32x32",
        "10 classes",
    ):
        assert part in reader.text
    assert reader.cells[6:12] == ["stem", "64", "", "1", "3x3", "32x32"]
    assert reader.cells[-6:] == ["stage 5", "256", "1", "2", "5x5, 3x3", "4x4"]


def test_spec_shows_groups_and_squeeze_excitation_where_there_are_any() -> None:
    plain = ModelSpec.resnet(channels=[8])
    adorned = plain.replace(groups=4, squeeze_excitation_ratio=0.25)
    assert "groups" not in read(plain._repr_html_()).text
    assert "4 groups, squeeze-and-excitation 0.25" in read(adorned._repr_html_()).text


def test_summary_shows_every_layer_and_the_total() -> None:
    summary = zoo.get("resnet20").summary()
    reader = read(summary._repr_html_())
    rows = [reader.cells[start : start + 5] for start in range(5, len(reader.cells), 5)]
    assert len(rows) == len(summary.rows)
    assert rows[0] == ["Conv2d-1", "stem.conv", "16x32x32", "432", "442,368"]
    assert rows[-1] == [f"Linear-{len(rows)}", "head.linear", "10", "650", "640"]
    assert "269,722 parameters" in reader.text


@pytest.mark.parametrize("kind", ["spec", "summary"])
def test_hostile_names_stay_text(kind: str) -> None:
    # A checked specification refuses such names; a copy that was made past the checks may still hold one.
    spec = zoo.get("resnet20").model_copy(update={"name": HOSTILE})
    reader = read(spec._repr_html_() if kind == "spec" else spec.summary()._repr_html_())
    assert HOSTILE in reader.text
    assert set(reader.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "br"}


def test_an_unnamed_network_is_called_by_its_shape() -> None:
    assert "preact-8x1-16x1" in ModelSpec.resnet(channels=[8, 16], block="preact")._repr_html_()
