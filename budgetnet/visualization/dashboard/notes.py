"""Notes on candidates: result, cost and budget, network, and the command to train it again."""

from __future__ import annotations

from collections.abc import Iterator

from budgetnet.common.formatting import count_of, percent
from budgetnet.model.deployed.limits import UNKNOWN_MS, limit_text, limit_words
from budgetnet.model.description import settings_in_words
from budgetnet.model.published import reference
from budgetnet.model.spec import ModelSpec
from budgetnet.statistics.intervals import format_with_interval, points, wilson_interval
from budgetnet.study.commands import train_command
from budgetnet.study.settings import StudySettings
from budgetnet.study.trials import Outcome, Trial
from budgetnet.visualization.dashboard.candidates import Candidate
from budgetnet.visualization.dashboard.markdown import code, plain, table

_OUTCOMES: dict[Outcome, str] = {
    "complete": "Fully trained, within the budget.",
    "pruned": "Pruned at the end of a cycle: other candidates were better after the same number of cycles.",
    "over budget": "Over budget: rejected before training.",
    "duplicate": "Duplicate: already trained, the stored result was used.",
    "interrupted": "Interrupted: the candidate is to be resumed in another trial.",
    "resumed": "Interrupted: the candidate was resumed in trial #{resumed_in}.",
    "skipped": "Skipped: trained by another worker.",
    "no result": "No result.",
}


def trial_note(candidate: Candidate, settings: StudySettings) -> str:
    """Return the note on a candidate.

    Args:
        candidate: the candidate.
        settings: settings of the study.
    """
    trial = candidate.trial
    parts = [trial_heading(trial), f"**{_OUTCOMES[trial.outcome].format(resumed_in=trial.resumed_in)}**"]
    if candidate.duplicate_of is not None:
        parts.append(f"The numbers are those of trial #{candidate.duplicate_of}, which has the learning curves.")
    if candidate.trouble is not None:
        parts.append(f"Incomplete: {plain(candidate.trouble)}")
    result = table(["result", ""], _result(trial, settings))
    parts += [result, budget_table(trial, settings)]
    if trial.outcome == "over budget":
        parts.append(_excess(candidate))
    # The dashboard shows the sampled values as well; list them only if the network is unknown.
    parts.append(_network(candidate.spec) if candidate.spec else _sampled_values(trial))
    if candidate.record is not None:
        run = candidate.record.folder.resolve()
        seed = settings.config.seed if trial.seed is None else trial.seed
        how = "fully" if trial.outcome == "pruned" else "again"
        parts += [f"To train it {how}, in a new folder:", code(train_command(run, settings, seed=seed))]
        parts += _place_of_data(settings)
    return "\n\n".join(parts)


def trial_heading(trial: Trial) -> str:
    """Return the heading of a trial's note."""
    return f"### {trial.name} {plain(trial.architecture)}"


def _result(trial: Trial, settings: StudySettings) -> Iterator[list[str]]:
    if trial.accuracy is not None and trial.correct is not None and trial.images:
        interval = wilson_interval(trial.correct, trial.images)
        reached = "" if trial.outcome != "pruned" else " when it was pruned"
        counted = f"{trial.correct:,} of {trial.images:,} validation images{reached}"
        yield [
            "accuracy",
            f"{plain(format_with_interval(trial.accuracy, interval, images=trial.images))} % at 95 %; {counted}",
        ]
    elif trial.accuracy is not None:
        yield ["accuracy", f"{percent(trial.accuracy)} % of the validation images"]
    if trial.accuracy is not None and settings.data.is_original_cifar10:
        published = reference().accuracy
        yield ["gap", f"{points(trial.accuracy - published)} points to the published {percent(published)} %"]
    if trial.epochs is not None:
        time = "" if trial.seconds is None else f", {trial.seconds:,.1f} s"
        yield ["trained", f"{count_of(trial.epochs, 'epoch')} in {count_of(trial.cycles or 0, 'whole cycle')}{time}"]
    if trial.reports:
        reports = (
            f"{epoch}: {percent(value, images=trial.images)} %" for epoch, value in sorted(trial.reports.items())
        )
        yield ["after epoch", ", ".join(reports)]
    yield ["ended", plain(trial.ended or "no reason recorded")]
    if trial.seed is not None:
        yield ["seed", str(trial.seed)]
    if trial.run is not None:
        yield ["run folder", plain(trial.run)]


def budget_table(trial: Trial, settings: StudySettings) -> str:
    """Return a table of a trial's cost and the limits of the budget."""
    limits = {limit.limit: limit for limit in settings.budget.limits(trial.cost, trial.needs)}
    rows = []
    for name, used in {**trial.cost._asdict(), **trial.needs}.items():
        limit = limits.get(name)
        row = [_word(name), limit_text(name, used)]
        if limit is None:
            row += ["no limit", "", ""]
        else:
            share = "unknown" if limit.is_unknown else f"{100 * limit.used / limit.allowed:,.1f} %"
            row += [
                limit.text(limit.allowed),
                limit.text(limit.headroom),
                share if limit.headroom >= 0 else f"**{share}**",
            ]
        rows.append(row)
    return table(["budget", "used", "allowed", "headroom", "share"], rows, right=range(1, 5))


def _excess(candidate: Candidate) -> str:
    needs = candidate.trial.needs
    over = [
        f"{_word(name)}: {'unknown' if needs.get(name) == UNKNOWN_MS else f'{value:.4f}'}"
        for name, value in candidate.violations.items()
        if value > 0
    ]
    return f"Nothing was trained. Constraint values (used / allowed - 1) above 0: {', '.join(over)}."


def _word(limit: str) -> str:
    return "MACs" if limit == "macs" else limit_words(limit)


def _network(spec: ModelSpec) -> str:
    rows = [["stem", f"{spec.stem.channels:,}", "", str(spec.stem.kernel_size), str(spec.stem.stride)]]
    for number, stage in enumerate(spec.stages, 1):
        first, second = stage.kernel_sizes
        bottleneck = spec.block_settings[number - 1].bottleneck
        kernels = f"1, {first}, 1" if bottleneck else f"{first}, {second}"
        rows.append([f"stage {number}", f"{stage.channels:,}", str(stage.blocks), kernels, str(stage.stride)])
    head = f"{spec.num_classes:,} classes"
    rows.append([f"head, {spec.head.pooling} pooling", head, "", "", ""])
    settings = settings_in_words(spec)
    channels, height, width = spec.input_shape
    settings.append(f"for images of {channels} x {height} x {width}")
    shown = table(["network", "channels", "blocks", "kernel sizes", "stride"], rows, right=range(1, 5))
    return f"{shown}\n\n{', '.join(settings)}"


def _sampled_values(trial: Trial) -> str:
    rows = [[plain(name), _value(value)] for name, value in sorted(trial.sampled.items())]
    return table(["sampled", ""], rows, right=[1])


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value))


def _place_of_data(settings: StudySettings) -> list[str]:
    _, _, place = settings.config.data.partition(":")
    return (
        ["Run it in the folder where the search was started, as the path of the data is relative."]
        if place and place[0] not in "/~"
        else []
    )
