"""Studies on a read-only file system: they are read as everywhere, and commands that write say why they cannot."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from report_support import every_outcome
from support import RunCommand, snapshot

from budgetnet.study.lock import StudyLock
from budgetnet.study.storage import default_storage, open_storage


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A read-only view of a folder that has a study in ``runs``; the current folder."""
    view, original = tmp_path / "view", tmp_path / "original"
    study = every_outcome(original / "runs")
    with study.searched():  # Which leaves the lock file of a search behind.
        pass
    study.study._storage.remove_session()
    open_storage(default_storage(original / "runs"), create=False).engine.dispose()
    view.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "--bind", original, view], check=False).returncode:
        pytest.skip("needs permission to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", view], check=True)
        monkeypatch.chdir(view)
        yield view
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", view], check=True)


def test_a_search_that_runs_elsewhere_is_found_where_its_lock_can_only_be_read(
    mounted: Path, tell: RunCommand, tmp_path: Path
) -> None:
    storage = open_storage(default_storage(tmp_path / "original" / "runs"), create=False)
    with StudyLock(storage, "study", Path()).held():
        assert '"running"' in tell("trials", "--json").out
    assert '"running"' not in tell("trials", "--json").out


def test_what_a_killed_search_wrote_last_is_read_too(mounted: Path, tell: RunCommand, tmp_path: Path) -> None:
    """A copy of its folder lacks the index of SQLite's write-ahead log, which only lives in shared memory."""
    runs, killed = tmp_path / "original" / "runs", tmp_path / "killed"
    with closing(sqlite3.connect(runs / "studies.db")) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE trial_user_attributes SET value_json = '\"killed\"' WHERE key = 'ended'")
        writer.commit()
        shutil.copytree(runs, killed)
    for path in runs.glob("studies.db*"):  # New files: this process may have the old ones open.
        path.unlink()
    for name in ("studies.db", "studies.db-wal"):
        shutil.copyfile(killed / name, runs / name)
    assert (runs / "studies.db-wal").stat().st_size > 0
    before = snapshot(mounted)
    told = tell("trials", "--json")
    assert (told.code, told.err) == (0, "")
    assert '"killed"' in told.out
    assert snapshot(mounted) == before


def test_a_study_is_read_and_nothing_is_written(mounted: Path, tell: RunCommand, tmp_path: Path) -> None:
    before = snapshot(mounted)
    here, there = tell("trials", "--json"), tell("trials", "--json", "--out", str(tmp_path / "original" / "runs"))
    assert (here.code, here.out) == (0, there.out)
    assert '"interrupted"' in here.out
    assert '"running"' not in here.out
    assert tell("report", "-o", str(tmp_path / "report.html")).code == 0
    for command in (["report"], ["search", "--data", "digits", "--trials", "1"], ["train", "reference"]):
        told = tell(*command)
        assert told.code in (1, 2)
        assert (told.out, told.err.count("\n")) == ("", 1)
        assert "writ" in told.err or "Read-only file system" in told.err
    assert snapshot(mounted) == before
