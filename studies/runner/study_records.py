"""Records of studies: copied from run folders, and later into the repository."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from study_order import Study

from budgetnet.common.files import atomic_write, atomic_write_path, write_text

RUN_FILES = ("run.json", "result.json", "curves.csv", "test.json", "environment.json")
"""Files of a run folder that are kept; weights are not."""
MAX_RUN_FOLDERS = 100
"""Number of runs above which `collect` packs them into one file."""
TEST_OPENINGS_FILE = "test-openings.jsonl"
"""Log of the openings of the test set."""
UNFINISHED = Path("studies") / "unfinished"
"""Folder in a repository for run folders with checkpoints, as in the runner's own folder of run folders."""


def keep_records(study: Study, *, runs: Path, records: Path) -> list[str]:
    """Copy the records of a study's finished runs to its other records; return the names of the runs.

    Args:
        study: the study.
        runs: folder of its run folders.
        records: folder of its records; JSON files in it name the runs to keep, unless the study keeps all.
    """
    finished = sorted(path.parent for path in runs.glob("*/result.json"))
    if study.keep_runs == "named":
        own = [path for path in records.rglob("*.json") if path.relative_to(records).parts[0] != "runs"]
        texts = [path.read_text(encoding="utf-8") for path in own]
        finished = [folder for folder in finished if any(folder.name in text for text in texts)]
    for folder in finished:
        for name in RUN_FILES:
            if (folder / name).exists():
                _copy(folder / name, records / "runs" / folder.name / name)
    if (runs / TEST_OPENINGS_FILE).exists() and any((folder / "test.json").exists() for folder in finished):
        _copy(runs / TEST_OPENINGS_FILE, records / TEST_OPENINGS_FILE)
    return [folder.name for folder in finished]


def collect(study: Study, *, records: Path, repository: Path) -> int:
    """Copy the records of a study to its folder in a repository; return the number of files.

    More than 100 runs are packed into ``runs.tar.gz``; equal records give equal bytes. Copies of these runs that
    `save_unfinished` made are removed.
    """
    target = repository / "studies" / study.folder
    files = [path for path in sorted(records.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    packed = [path for path in files if path.is_relative_to(records / "runs")]
    if len({path.parent for path in packed}) <= MAX_RUN_FOLDERS:
        packed = []
    else:
        _pack(packed, target / "runs.tar.gz", relative_to=records)
        files = [path for path in files if path not in set(packed)]
    for path in files:
        if path.name == TEST_OPENINGS_FILE:
            _add_lines(path, target / path.relative_to(records))
        else:
            _copy(path, target / path.relative_to(records))
    for run in (records / "runs").glob("*/"):
        shutil.rmtree(repository / UNFINISHED / study.runs_folder / run.name, ignore_errors=True)
    return len(files) + bool(packed)


def save_unfinished(runs: Path, saved: Path) -> list[str]:
    """Copy unfinished run folders, none of which is being trained; return their names.

    Args:
        runs: folder of run folders.
        saved: folder to copy to, a study's of `UNFINISHED`.
    """
    begun = sorted(path.parent for path in runs.glob("*/checkpoint.safetensors"))
    unfinished = [folder for folder in begun if not (folder / "result.json").exists()]
    for folder in unfinished:
        _copy_folder(folder, saved / folder.name)
    return [folder.name for folder in unfinished]


def restore_unfinished(saved: Path, runs: Path) -> list[str]:
    """Copy the run folders that `save_unfinished` has copied back, where there is none; return their names."""
    absent = [folder for folder in sorted(saved.glob("[!.]*/")) if not (runs / folder.name).exists()]
    for folder in absent:
        _copy_folder(folder, runs / folder.name)
    return [folder.name for folder in absent]


def _add_lines(source: Path, target: Path) -> None:
    """Add the lines that a file lacks: studies may share a folder in the repository but not their runs."""
    present = target.read_text(encoding="utf-8").splitlines() if target.exists() else []
    added = [line for line in source.read_text(encoding="utf-8").splitlines() if line not in present]
    if added:
        write_text(target, "".join(f"{line}\n" for line in [*present, *added]))


def _pack(files: Sequence[Path], target: Path, *, relative_to: Path) -> None:
    with (
        atomic_write(target) as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for path in files:
            entry, content = tarfile.TarInfo(str(path.relative_to(relative_to))), path.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _copy_folder(source: Path, target: Path) -> None:
    """Copy a run folder without its lock; an interrupted copy is not taken for one."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _copy(source: Path, target: Path) -> None:
    with atomic_write_path(target) as temporary:
        shutil.copyfile(source, temporary)
