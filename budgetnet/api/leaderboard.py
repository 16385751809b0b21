"""`budgetnet.leaderboard`: ranked candidates of a study, or trained runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from budgetnet.common.errors import InputError, RecordError
from budgetnet.common.files import exists
from budgetnet.common.formatting import count_of, percent
from budgetnet.evaluation.results import require_common_images, require_distinct
from budgetnet.runs.recipe import require_reliable_validation
from budgetnet.runs.store import RunFolder
from budgetnet.study.leaderboard import LeaderboardRow, rank, rows_needs, run_candidates
from budgetnet.study.run_names import DEFAULT_FOLDER, is_run_name, run_path

if TYPE_CHECKING:
    import pandas as pd

    from budgetnet.runs.records import RunRecord


class Leaderboard(tuple[LeaderboardRow, ...]):
    """Ranked candidates, best first, on original CIFAR-10 with the published result among them.

    Attributes:
        title: name of the study, or the number of runs.
    """

    title: str

    @classmethod
    def of(cls, rows: Sequence[LeaderboardRow], *, title: str) -> Leaderboard:
        """Return a leaderboard with the given rows and title."""
        board = cls(rows)
        board.title = title
        return board

    def frame(self) -> pd.DataFrame:
        """Return the leaderboard as a data frame; accuracies and gaps from 0 to 1."""
        import pandas as pd

        columns = [name for name in LeaderboardRow._fields if name != "needs"]
        deployed = rows_needs(self)
        frame = pd.DataFrame([row.to_mapping() for row in self], columns=[*columns, *deployed, "exceeds_noise"])
        return frame.astype(dict.fromkeys(("rank", "seed", "train_flops"), "Int64"))

    def __repr__(self) -> str:
        best = next((row for row in self if row.rank == 1), None)
        text = (
            f"best {best.name} {best.architecture}, {percent(best.accuracy, images=best.images)} %"
            if best
            else "no candidate yet"
        )
        return f"Leaderboard({self.title}: {text})"

    def _repr_html_(self) -> str:
        from budgetnet.visualization.html import leaderboard_html

        return leaderboard_html(self, title=self.title)


def is_run(source: Path | str) -> bool:
    """Return whether a source is a run folder, which contains ``run.json``, or the name of a run such as ``best``."""
    return exists(Path(source) / "run.json") or is_run_name(source)


def rank_runs(
    folders: Sequence[Path | str], *, out: Path = DEFAULT_FOLDER, storage: str | None = None
) -> tuple[Leaderboard, list[RunRecord]]:
    """Rank finished runs by validation accuracy; all must be validated on the same images.

    Args:
        folders: run folders, or names of runs such as ``#3``.
        out: folder of runs in which names are looked for.
        storage: URL of the storage of their studies. Default: the SQLite file in `out`.

    Raises:
        RecordError: a folder has no finished run, or one without a result.
        InputError: a run is given twice, was validated on other images than the first, or on images that it trained on.
    """
    if not folders:
        raise InputError("runs", [], "must be at least one run folder")
    # The last part of a path such as . is no name.
    given = (run_path(folder, out=out, storage=storage) for folder in folders)
    paths = [folder if folder.name not in ("", "..") else folder.resolve() for folder in given]
    records = [RunFolder(path).load(weights=False) for path in paths]
    for record in records:
        if record.result.status != "complete" or record.result.validation_correct is None:
            raise RecordError("run folder", str(record.folder), f"cannot be ranked: {record.result.reason}")
        require_reliable_validation(record.identity.recipe, field=f"recipe of {record.folder.name}")
    require_distinct(records)
    require_common_images(records, "validation")
    comparable = records[0].identity.data.is_original_cifar10
    return Leaderboard.of(
        rank(run_candidates(records), comparable=comparable), title=count_of(len(records), "run")
    ), records


def leaderboard(
    source: str | Path | Sequence[Path | str] | None = None, *, out: Path | str = "runs", storage: str | None = None
) -> Leaderboard:
    """Rank the candidates of a study, or trained runs, by validation accuracy.

    Args:
        source: a study's name, a run folder, or several run folders. Default: the most recent study.
        out: folder of run folders, for a study and for names of runs such as ``#3``.
        storage: URL of the study's storage. Default: the SQLite file in `out`.

    Raises:
        InputError: the URL is malformed, or runs cannot be ranked together.
        RecordError: the study does not exist, or a run folder is unfinished or damaged.
    """
    if source is None or (isinstance(source, str) and not is_run(source)):
        from budgetnet.api.study import open_study

        return open_study(source, out=out, storage=storage).leaderboard()
    return rank_runs([source] if isinstance(source, str | Path) else source, out=Path(out), storage=storage)[0]
