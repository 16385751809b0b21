"""HTML tables for notebooks, without scripts; all text is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from budgetnet.common.formatting import (
    count_of,
    percent,
    share_of_limit,
    short_count,
    short_p_value,
    short_petaflops,
)
from budgetnet.evaluation.results import BINS, EvaluatedRun, compare
from budgetnet.experiments.ablation.changes import EFFECT_RULE, POOLED_RULE
from budgetnet.experiments.ablation.results import AblationResult, Row
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.model.cost import cost_of
from budgetnet.model.deployed.limits import limit_text, limit_words
from budgetnet.model.description import settings_in_words
from budgetnet.model.sizes import feature_sizes
from budgetnet.model.spec import ModelSpec
from budgetnet.model.summary import Summary
from budgetnet.model.verdict import LimitVerdict, Verdict
from budgetnet.runs.named_recipes import describe_recipe
from budgetnet.runs.records import RunRecord
from budgetnet.statistics.intervals import format_with_interval, points, wilson_interval
from budgetnet.study.leaderboard import LeaderboardRow, gap_text, noise_word, rows_needs
from budgetnet.study.trials import Trial, outcome_text
from budgetnet.visualization.figures.outline import outline_alt
from budgetnet.visualization.figures.style import GREEN, RULE, VERMILLION
from budgetnet.visualization.figures.svg import silhouette_svg

if TYPE_CHECKING:
    from budgetnet.evaluation.predict import Prediction

_CELL = "padding:2px 10px;text-align:{side};font-variant-numeric:tabular-nums"


def table_html(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """Return an HTML table; the first ``left`` columns hold text, the others numbers."""
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
    """Return a specification as a table of its stages, with the network's cost above and its silhouette below."""
    # An image, because GitHub and notebooks that are not trusted leave drawings out that are part of the page.
    source = f"data:image/svg+xml;base64,{b64encode(silhouette_svg(spec, width=480).encode()).decode()}"
    drawing = f'<img alt="{escape(outline_alt(spec))}" width="480" style="max-width:100%" src="{source}">'
    return f'{stages_html(spec)}<div style="padding:4px 10px">{drawing}</div>'


def stages_html(spec: ModelSpec) -> str:
    """Return a specification as a table of its stages, with the network's cost."""
    cost = cost_of(spec)
    sizes = [f"{height}x{width}" for height, width in feature_sizes(spec)]
    stem = spec.stem
    kernel = f"{stem.kernel_size}x{stem.kernel_size}"
    rows: list[Sequence[object]] = [("stem", stem.channels, "", stem.stride, kernel, sizes[0])]
    for number, stage in enumerate(spec.stages, 1):
        kernels = ", ".join(f"{size}x{size}" for size in dict.fromkeys(stage.kernel_sizes))
        rows.append((f"stage {number}", stage.channels, stage.blocks, stage.stride, kernels, sizes[number]))
    image = "x".join(map(str, spec.input_shape))
    caption = (
        f"<b>{escape(spec.label)}</b> · {cost.params:,} parameters · {cost.macs:,} MACs<br>"
        f"{escape(', '.join(settings_in_words(spec)))} · input {image} · {spec.num_classes} classes"
    )
    return table_html(caption, ("", "channels", "blocks", "stride", "kernels", "output"), rows)


def verdict_html(verdict: Verdict) -> str:
    """Return a verdict as a table and bars of its limits, with the smallest edits if it is over budget."""
    rows = [
        (
            limit.words,
            limit.text(limit.used),
            limit.text(limit.allowed),
            limit.text(limit.headroom),
            share_of_limit(limit.violation + 1),
        )
        for limit in verdict.limits
    ]
    caption = f"<b>{escape(verdict.name)}</b> · {verdict.word}"
    caption += f"<br>{escape(verdict.note)}" if verdict.note else ""
    table = table_html(caption, ("limit", "used", "allowed", "headroom", "share"), rows)
    table += "".join(map(_bar, verdict.limits))
    if not verdict.edits:
        return table
    needs = verdict.budget.deployed
    edits = [
        (
            edit.description,
            *(f"{number:,}" for number in edit.cost),
            *(limit_text(name, edit.needs[name]) for name in needs),
        )
        for edit in verdict.edits
    ]
    headings = ("edit", "parameters", "MACs", "activations", *map(limit_words, needs))
    return table + table_html("smallest edits that fit", headings, edits)


def _bar(limit: LimitVerdict) -> str:
    """Return the used share of a limit as a bar; a mark shows the limit if it is exceeded."""
    used = limit.violation + 1
    fits = limit.headroom >= 0
    text = f"{limit.words}: {share_of_limit(used)} of {limit.text(limit.allowed)}, {'fits' if fits else 'over'}"
    full = min(1.0, used)
    mark = 1.0 if fits else 1 / used
    ground = f"position:relative;width:320px;max-width:100%;height:10px;margin:4px 10px;background:{RULE}"
    filled = f"width:{100 * full:.1f}%;height:100%;background:{GREEN if fits else VERMILLION}"
    line = f"position:absolute;top:-2px;left:{100 * mark:.1f}%;width:2px;height:14px;background:#222"
    parts = f'<div style="{filled}"></div><div style="{line}"></div>'
    return f'<div role="img" aria-label="{escape(text)}" title="{escape(text)}" style="{ground}">{parts}</div>'


def summary_html(summary: Summary) -> str:
    """Return a network layer by layer, as a table."""
    rows = [
        (row.layer, row.path, "x".join(map(str, row.output_shape[1:])), f"{row.cost.params:,}", f"{row.cost.macs:,}")
        for row in summary.rows
    ]
    total = summary.total
    caption = f"<b>{escape(summary.name)}</b> · {total.params:,} parameters · {total.macs:,} MACs"
    return table_html(caption, ("layer", "weights", "output", "parameters", "MACs"), rows, left=2)


def leaderboard_html(rows: Sequence[LeaderboardRow], *, title: str, most: int | None = None) -> str:
    """Return ranked candidates, and the published result if it is among them, as a table.

    Args:
        rows: rows of the leaderboard, best first.
        title: title of the table.
        most: maximum number of candidates to show. Default: all.
    """
    deployed = rows_needs(rows)
    shown = [row for row in rows if most is None or row.is_reference or (row.rank or 0) <= most]
    has_front = any(row.on_front is not None for row in rows)
    cells = [
        (
            "" if row.rank is None else row.rank,
            row.name,
            row.architecture,
            f"{row.params:,}",
            short_count(row.macs),
            *("" if name not in row.needs else limit_text(name, row.needs[name]) for name in deployed),
            "" if row.train_flops is None else short_petaflops(row.train_flops),
            format_with_interval(row.accuracy, row.interval, images=row.images),
            gap_text(row),
            noise_word(row.exceeds_noise),
            *(["yes" if row.on_front else ""] if has_front else []),
        )
        for row in shown
    ]
    omitted = len(rows) - len(shown)
    caption = f"<b>{escape(title)}</b> · ranked by validation accuracy" + (f" · {omitted} more" if omitted else "")
    gap = f"gap to {rows[0].compared_with}" if rows else "gap"
    costs = ("params", "MACs", *map(limit_words, deployed), "PFLOP")
    head = ("rank", "candidate", "architecture", *costs, "accuracy % [95 %]", gap, "beyond noise?")
    return table_html(caption, (*head, "front") if has_front else head, cells, left=3)


def study_html(
    rows: Sequence[LeaderboardRow], *, title: str, facts: Mapping[str, str], counts: Mapping[str, int]
) -> str:
    """Return a study as HTML: its settings, the number of candidates by outcome, and the best ten.

    Args:
        rows: its leaderboard.
        title: its name.
        facts: its settings, by name.
        counts: number of candidates by outcome (`budgetnet.study.trials.count_outcomes`).
    """
    lines = [*facts.items(), ("candidates", outcome_text(counts))]
    about = table_html(f"study <b>{escape(title)}</b>", ("", ""), lines, left=2)
    return about + leaderboard_html(rows, title=title, most=10)


def candidate_html(trial: Trial, record: RunRecord) -> str:
    """Return a trained candidate as HTML: its run and its network."""
    # It is 0 where the search had no limit.
    use = f" · {100 * trial.budget_used:.1f} % of the budget" if trial.budget_used else ""
    return f"<p><b>{escape(trial.name)}</b>{use}</p>{run_html(record)}"


def run_html(record: RunRecord) -> str:
    """Return a finished run as HTML: its result, recipe and network."""
    identity, result = record.identity, record.result
    accuracy = f"no result: {result.reason}"
    if result.validation_correct is not None:
        share = result.validation_correct / result.validation_images
        interval = wilson_interval(result.validation_correct, result.validation_images)
        accuracy = f"{format_with_interval(share, interval, images=result.validation_images)} % validation accuracy"
    facts = [
        accuracy,
        f"recipe {describe_recipe(identity.recipe)}, {count_of(result.epochs, 'epoch')}, seed {identity.seed}",
        f"{short_petaflops(record.train_flops)} PFLOP",
    ]
    head = f"<p><b>{escape(record.folder.name)}</b> · {escape(' · '.join(facts))}</p>"
    return head + spec_html(identity.spec)


def evaluations_html(evaluated: Sequence[EvaluatedRun]) -> str:
    """Return evaluated runs as a table, and their pairwise comparisons."""
    rows = [
        (
            number,
            each.run,
            each.record.identity.spec.label,
            f"{each.record.result.params:,}",
            format_with_interval(each.scores.accuracy, each.scores.interval, images=each.scores.images),
            percent(each.scores.balanced_accuracy, images=each.scores.images),
            f"{each.scores.images:,}",
            f"{each.scores.loss:.4f}",
            percent(each.scores.calibration(BINS).ece),
            "; ".join(each.remarks),
        )
        for number, each in enumerate(evaluated, 1)
    ]
    caption = f"<b>{evaluated[0].part} images</b>" if evaluated else "no runs"
    head = (
        "",
        "run",
        "architecture",
        "params",
        "accuracy % [95 %]",
        "balanced %",
        "images",
        "loss",
        "ECE %",
        "remarks",
    )
    table = table_html(caption, head, rows, left=3)
    numbers = {str(each.record.folder): number for number, each in enumerate(evaluated, 1)}
    compared = [
        (
            f"{numbers[each.first]} - {numbers[each.second]}",
            points(each.outcome.difference, each.outcome.interval),
            short_p_value(each.adjusted_p),
        )
        for each in compare(evaluated)
    ]
    if compared:
        table += table_html("differences on the same images", ("", "points [95 %]", "p (McNemar, Holm)"), compared)
    return table


def predictions_html(predictions: Sequence[Prediction], *, class_names: Sequence[str]) -> str:
    """Return the three most probable classes of each image, or the reason why it could not be read."""
    rows: list[Sequence[object]] = []
    for each in predictions:
        if each.error is not None:
            rows.append((each.image, str(each.error), ""))
        for place, (number, probability) in enumerate(each.top_classes(3)):
            rows.append(("" if place else each.image, class_names[number], percent(probability)))
    return table_html("predictions", ("image", "class", "probability %"), rows, left=2)


def ablation_html(result: AblationResult) -> str:
    """Return an ablation as tables: the variants of each network, base first, and the effect of each change."""
    study = result.study
    about = f" · {study.judged_on} accuracy · {len(study.seeds)} paired seeds"
    compared = ("compared with",) if study.has_several_references else ()
    head = ("variant", "params", "n", "mean %", "sd", *compared, "difference, points [95 %]", "p (Holm)")
    tables, name = [], study.name or "ablation"
    for network in result.networks:
        cells = [_ablation_cells(row, study=study) for row in result.rows_of(network)]
        title = f"{name}, network {network}" if network else name
        tables.append(table_html(f"<b>{escape(title)}</b>{about}", head, cells))
    if result.changes:
        tables.append(_changes_html(result))
    tables += [f"<p>{escape(line)}</p>" for line in study.remarks]
    return "".join(tables)


def _ablation_cells(row: Row, *, study: AblationStudy) -> list[object]:
    difference, compared = row.difference, study.has_several_references
    if row.variant.is_base:
        text = "" if compared else study.base_name
    else:
        text = points(difference.mean, difference.interval) if difference else row.remark
    return [
        row.variant.name,
        f"{row.variant.spec.params:,}",
        row.n,
        "" if row.mean is None else percent(row.mean),
        "" if row.standard_deviation is None else percent(row.standard_deviation),
        *([row.variant.compared_with] if compared else []),
        text,
        "" if row.p_value is None else short_p_value(row.p_value),
    ]


def _changes_html(result: AblationResult) -> str:
    several = len(result.networks) > 1
    cells = []
    for change in result.changes:
        for comparison in change.comparisons:
            rows = [comparison.rows.get(network) for network in result.networks]
            pooled = comparison.pooled
            found = [each and each.difference for each in (*rows, *([pooled] if several else []))]
            numbers = [points(each.mean, each.interval) if each else "-" for each in found]
            if several:
                numbers.append("" if pooled is None or pooled.p_value is None else short_p_value(pooled.p_value))
            cells.append((change.name, comparison.label, *numbers, change.verdict))
    pooled_head = ("all networks", "p (Holm)") if several else ()
    head = ("change", "", *(network or "difference" for network in result.networks), *pooled_head, "verdict")
    rules = (EFFECT_RULE, POOLED_RULE) if several else (EFFECT_RULE,)
    return table_html("<b>changes</b>, points [95 %]", head, cells, left=2) + f"<p>{escape(' '.join(rules))}</p>"
