"""SVG drawings of networks: well-formed, with the text and boxes of the outline."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import pytest
from figures_support import HOSTILE
from hypothesis import given
from strategies import many_examples, specs

from budgetnet.model import zoo
from budgetnet.model.lowering import lower
from budgetnet.model.spec import ModelSpec
from budgetnet.visualization.figures import outline, outline_svg, silhouette_svg

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def words(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", ["reference", "resnet20", "wrn-16-4"])
def test_the_outline_says_and_draws_what_the_figure_does(name: str) -> None:
    spec = zoo.get(name)
    figure, svg = outline(spec), parsed(outline_svg(spec))
    plain = [note.text.replace("<b>", "").replace("</b>", "") for note in figure.layout.annotations]
    assert Counter(words(svg)) == Counter(line for text in plain for line in text.split("<br>"))
    kinds = Counter(shape.type for shape in figure.layout.shapes)
    assert len(list(svg.iter(f"{SVG}rect"))) == kinds["rect"]
    assert len(list(svg.iter(f"{SVG}line"))) == kinds["line"]
    arrows, sums = figure.data
    assert len(list(svg.iter(f"{SVG}polygon"))) == len(arrows.y)
    assert len(list(svg.iter(f"{SVG}circle"))) == len(sums.y)
    assert svg.findtext(f"{SVG}desc") == figure.layout.meta["alt"]


@many_examples
@given(specs())
def test_a_silhouette_has_a_column_for_each_convolution_within_its_drawing(spec: ModelSpec) -> None:
    svg = parsed(silhouette_svg(spec))
    columns = [
        {key: float(each.get(key, "nan")) for key in ("x", "y", "width", "height")} for each in svg.iter(f"{SVG}rect")
    ]
    convolutions = sum(len(block.convs) for stage in lower(spec).stages for block in stage)
    convolutions += 1 + len(spec.stem.inner_channels) + (spec.head.channels is not None)
    assert len(columns) == convolutions + 1, "and the linear layer"
    assert all(each["x"] >= 0 and each["x"] + each["width"] <= 640.1 and each["width"] > 0 for each in columns)
    assert all(each["y"] >= -0.01 and each["height"] <= 84.01 for each in columns)
    assert words(svg) == ["stem", *(str(number + 1) for number in range(len(spec.stages))), "head"]


def test_a_silhouette_of_hundreds_of_columns_stays_within_its_drawing() -> None:
    deep = ModelSpec.resnet(channels=[8, 16, 16], blocks=[64, 64, 64])
    widths = [float(each.get("width", "nan")) for each in parsed(silhouette_svg(deep)).iter(f"{SVG}rect")]
    assert len(widths) == 2 * 3 * 64 + 2
    assert min(widths) > 0


def test_a_column_is_as_high_as_its_map_and_as_wide_as_its_channels_by_their_roots() -> None:
    spec = ModelSpec.resnet(channels=[16, 64], strides=[1, 2], input_shape=(3, 32, 32))
    _, narrow, *_, wide, _ = list(parsed(silhouette_svg(spec)).iter(f"{SVG}rect"))

    def ratio(key: str) -> float:
        return float(wide.get(key, "nan")) / float(narrow.get(key, "nan"))

    assert ratio("width") == pytest.approx(2, abs=0.001)
    assert ratio("height") == pytest.approx((16 / 32) ** 0.5, abs=0.001)


@pytest.mark.parametrize("draw", [outline_svg, silhouette_svg])
def test_a_name_is_shown_as_it_stands(draw: object) -> None:
    assert callable(draw)
    svg = draw(zoo.reference.model_copy(update={"name": HOSTILE}))
    assert "<script" not in svg
    assert HOSTILE in (parsed(svg).findtext(f"{SVG}title") or "")
