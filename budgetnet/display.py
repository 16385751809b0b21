"""How specifications look in a notebook: plain HTML tables, no scripts, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from budgetnet.budget import Verdict
from budgetnet.cost import cost_of
from budgetnet.spec import ModelSpec, feature_sizes
from budgetnet.summary import Summary

_CELL = "padding:2px 10px;text-align:{side};font-variant-numeric:tabular-nums"


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """An HTML table; the first ``left`` columns hold text, the others numbers."""
    sides = ["left" if column < left else "right" for column in range(len(head))]

    def line(tag: str, cells: Sequence[object]) -> str:
        styled = (
            f'<{tag} style="{_CELL.format(side=side)}">{escape(str(cell))}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(styled)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return (
        f'<table style="border-collapse:collapse"><caption style="text-align:left;padding:4px 10px">{caption}</caption>'
        f"<thead>{line('th', head)}</thead><tbody>{body}</tbody></table>"
    )


def spec_html(spec: ModelSpec) -> str:
    """A specification as a table of its stages, with the whole network's cost above."""
    cost = cost_of(spec)
    sizes = [f"{height}x{width}" for height, width in feature_sizes(spec)]
    stem = spec.stem
    kernel = f"{stem.kernel_size}x{stem.kernel_size}"
    rows: list[Sequence[object]] = [("stem", stem.channels, "", stem.stride, kernel, sizes[0])]
    for number, stage in enumerate(spec.stages, 1):
        kernels = ", ".join(f"{size}x{size}" for size in dict.fromkeys(stage.kernel_sizes))
        rows.append((f"stage {number}", stage.channels, stage.blocks, stage.stride, kernels, sizes[number]))
    settings = [f"{spec.block} blocks", spec.activation, f"{spec.shortcut.kind} shortcut"]
    if spec.groups > 1:
        settings.append(f"{spec.groups} groups")
    if spec.squeeze_excitation_ratio:
        settings.append(f"squeeze-and-excitation {spec.squeeze_excitation_ratio:g}")
    image = "x".join(map(str, spec.input_shape))
    caption = (
        f"<b>{escape(spec.label)}</b> · {cost.params:,} parameters · {cost.macs:,} MACs<br>"
        f"{escape(', '.join(settings))} · input {image} · {spec.num_classes} classes"
    )
    return _table(caption, ("", "channels", "blocks", "stride", "kernels", "output"), rows)


def verdict_html(verdict: Verdict) -> str:
    """A verdict as a table of its limits, with the smallest edits below when it is over."""
    rows = [
        (limit.limit, f"{limit.used:,}", f"{limit.allowed:,}", f"{limit.headroom:,}", f"{limit.violation + 1:.1%}")
        for limit in verdict.limits
    ]
    caption = f"<b>{escape(verdict.spec.label)}</b> · {'fits' if verdict.fits else 'over budget'}"
    table = _table(caption, ("limit", "used", "allowed", "headroom", "share"), rows)
    if not verdict.edits:
        return table
    edits = [(edit.description, *(f"{number:,}" for number in edit.cost)) for edit in verdict.edits]
    return table + _table("smallest edits that fit", ("edit", "parameters", "MACs", "activations"), edits)


def summary_html(summary: Summary) -> str:
    """A network layer by layer, as a table."""
    rows = [
        (row.layer, row.path, "x".join(map(str, row.output_shape[1:])), f"{row.cost.params:,}", f"{row.cost.macs:,}")
        for row in summary.rows
    ]
    total = summary.total
    caption = f"<b>{escape(summary.name)}</b> · {total.params:,} parameters · {total.macs:,} MACs"
    return _table(caption, ("layer", "weights", "output", "parameters", "MACs"), rows, left=2)
