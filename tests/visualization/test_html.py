"""HTML tables of notebooks: numbers are present and text is escaped."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ablation_support import STUDY, counts_of, result_of
from figures_support import RUN
from html_support import Reader, read
from support import TINY, tiny_recipe

from budgetnet import AblationStudy, ablate, check
from budgetnet.data import DataSet
from budgetnet.model import zoo
from budgetnet.model.spec import ModelSpec
from budgetnet.runs.store import RunFolder
from budgetnet.study.trials import Trial
from budgetnet.visualization.figures import ablation_forest
from budgetnet.visualization.html import candidate_html

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('1')</script>&amp;\"</td>"


def picture_of(reader: Reader) -> ElementTree.Element:
    """The only image, which has to be part of the page: GitHub leaves out ``<svg>``."""
    (image,) = reader.images
    kind, _, content = (image["src"] or "").partition(";base64,")
    assert kind == "data:image/svg+xml"
    return ElementTree.fromstring(b64decode(content))


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
    assert reader.cells[-6:-1] == ["stage 5", "256", "1", "2", "5x5, 3x3"]
    assert reader.cells[-1].startswith("4x4")


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
    assert set(reader.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "b", "br", "div", "img"}
    if kind == "spec":
        assert HOSTILE in picture_of(reader).findtext(f"{SVG}title", "")


def test_a_network_is_drawn_below_its_table() -> None:
    reader = read(zoo.reference._repr_html_())
    # A column for the stem, each of the seven blocks' two convolutions, and the head.
    assert len(picture_of(reader).findall(f"{SVG}rect")) == 1 + 7 * 2 + 1
    assert "4,662,346 parameters" in (reader.images[0]["alt"] or "")


@pytest.mark.parametrize(
    ("limit", "words", "filled", "mark"),
    [
        ("5M", "params: 93.2 % of 5,000,000, fits", "93.2%", "100.0%"),
        ("4M", "params: 116.6 % of 4,000,000, over", "100.0%", "85.8%"),
    ],
)
def test_a_verdict_has_a_bar_for_each_limit(limit: str, words: str, filled: str, mark: str) -> None:
    # 4,662,346 of 5,000,000 are 93.2 %; 4,000,000 of 4,662,346 are 85.8 %, where the limit lies in the bar.
    html = check(zoo.reference, max_params=limit, max_macs="1G")._repr_html_()
    assert html.count('role="img"') == 2
    assert f'aria-label="{words}"' in html
    bar = html[html.index(words) :]
    assert f"width:{filled}" in bar.split("</div>")[0]
    assert f"left:{mark}" in bar.split("</div>")[1]


def test_a_candidate_of_a_search_without_a_limit_uses_no_share_of_it() -> None:
    record = RunFolder(RUN).load(weights=False)
    trial = Trial(7, "complete", "net", "0" * 64, 100, 1_000, 1, budget_used=0.25)
    assert "#7 · 25.0 % of the budget" in read(candidate_html(trial, record)).text
    assert "budget" not in read(candidate_html(trial._replace(budget_used=0.0), record)).text


def test_an_unnamed_network_is_called_by_its_shape() -> None:
    assert "preact-8x1-16x1" in ModelSpec.resnet(channels=[8, 16], block="preact")._repr_html_()


@pytest.mark.parametrize("several", [False, True])
def test_an_ablation_without_a_name_has_headings_all_the_same(several: bool) -> None:
    mapping = {name: value for name, value in STUDY.items() if name != "name"}
    if not several:
        mapping["spec"] = mapping.pop("networks")["basic"]
    result = result_of(AblationStudy.from_mapping(mapping), lambda network, name: counts_of(network or "basic", name))
    assert f"<b>ablation{', network basic' if several else ''}</b>" in result._repr_html_()
    title = ablation_forest(result).layout.meta["title"]
    assert repr(result).startswith("AblationResult(ablation: ")
    assert title == f"ablation: difference {'over all networks' if several else 'to the variant compared with'}"


def test_an_ablation_shows_each_variant_beside_the_base(digits: DataSet, tmp_path: Path) -> None:
    mapping = {
        "name": "widths",
        "spec": {**TINY.to_mapping(), "num_classes": 10},
        "recipe": tiny_recipe(epochs=1).to_mapping(),
        "factors": {"recipe.momentum": [0.5, 0.9]},
        "seeds": 2,
    }
    result = ablate(AblationStudy.from_mapping(mapping), data=digits, out=tmp_path, device="cpu")
    reader = read(result._repr_html_())
    base, variant = result.rows
    rows = [reader.cells[start : start + 7] for start in range(7, len(reader.cells), 7)]
    assert [row[0] for row in rows] == [base.variant.name, variant.variant.name]
    assert [row[2] for row in rows] == ["2", "2"]
    assert rows[0][5] == "base"
    shares = [[cell.accuracy or 0.0 for cell in row.cells] for row in (base, variant)]
    mean = sum(other - one for one, other in zip(*shares, strict=True)) / 2
    assert rows[1][5].startswith(f"{100 * mean:+.2f} [")
