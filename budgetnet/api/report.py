"""`budgetnet.report`: write a study as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from budgetnet.study.storage import STORAGE_FILE, default_storage, find_study, open_storage, storage_errors


class WrittenReport(NamedTuple):
    """A report that was written."""

    study: str
    """Name of the study; of a report without a search, of its ablations."""
    path: Path
    """The page."""

    def _repr_html_(self) -> str:
        return f'<a href="{escape(str(self.path))}">report of {escape(self.study)}</a>'


def report(
    study: str | None = None,
    *,
    to: Path | str = "report.html",
    out: Path | str = "runs",
    storage: str | None = None,
    ablations: Sequence[Path | str] = (),
    reproductions: Sequence[Path | str] = (),
) -> WrittenReport:
    """Write a study as a self-contained HTML page, as ``budgetnet report`` does.

    Nothing is trained, and the test set is not used. If `out` has no storage and no study or storage is given, the page
    has only the ablations and reproductions.

    Args:
        study: name of the study. Default: the most recent one.
        to: HTML file; an existing file is replaced.
        out: folder of run folders.
        storage: URL of the study's storage. Default: the SQLite file in `out`.
        ablations: folders of ablations to include, or of their runs.
        reproductions: folders of runs to compare with published results.

    Raises:
        InputError: the page cannot be written, or the URL is malformed.
        RecordError: the study or the storage does not exist.
    """
    from budgetnet.visualization.report import collect, collect_experiments, require_page, write_report

    page, folder = Path(to), Path(out)
    require_page(page, field="to")
    experiments = {
        "ablations": [Path(each) for each in ablations],
        "reproductions": [Path(each) for each in reproductions],
    }
    if any(experiments.values()) and study is None and storage is None and not (folder / STORAGE_FILE).exists():
        experiment_report = collect_experiments(**experiments)
        write_report(experiment_report, page, field="to")
        return WrittenReport(experiment_report.title, page)
    kept = open_storage(storage or default_storage(folder), create=False)
    with storage_errors(str(kept.url)):
        collected = collect(find_study(kept, study), out=folder, storage=storage, **experiments)
    write_report(collected, page, field="to")
    return WrittenReport(collected.study, page)
