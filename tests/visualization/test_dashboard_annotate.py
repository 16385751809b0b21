"""Dashboard notes written again, concurrently, after kills, and with damaged run folders."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dashboard_support import EIGHT, NAME, RECIPE, Copy, all_outcomes, copied, opened
from postgres_support import PASSWORD, PostgresServer
from process_support import ForkedProcess, python_code
from search_support import SearchRunner, Watcher
from support import child_environment, snapshot

from budgetnet.common.errors import RecordError
from budgetnet.data import DataSet
from budgetnet.study.storage import find_study
from budgetnet.visualization.dashboard.annotating import LOCK

__all__ = ["all_outcomes"]


@pytest.fixture
def copy(all_outcomes: Path, tmp_path: Path) -> Copy:
    return copied(all_outcomes, tmp_path / "runs")


def require_whole(copy: Copy) -> None:
    """Every trial that has ended has one note and the files that its outcome needs, and the folder holds no others."""
    shown = copy.shown()
    names: list[str] = []
    for trial, each in zip(copy.trials, shown["trials"], strict=True):
        assert each["note"]["body"].startswith(f"### #{trial.number} ")
        files = [found["filename"] for found in each["artifacts"]]
        asked = {"outline.svg", "spec.yaml"}
        asked |= {"recipe.yaml"} if trial.outcome in ("complete", "pruned", "duplicate") else set()
        asked |= {"learning-curves.svg"} if trial.outcome in ("complete", "pruned") else set()
        assert Counter(files) == Counter(asked), trial
        names += [found["artifact_id"] for found in each["artifacts"]]
    assert {path.name for path in (copy.out / "artifacts").iterdir()} == {*names, LOCK}
    assert len(shown["plotly_graph_objects"]) == 4
    assert all(json.loads(each["graph_object"])["data"] for each in shown["plotly_graph_objects"])


def test_everything_is_written_once(copy: Copy) -> None:
    told: list[tuple[int, int]] = []
    count = len(copy.trials)
    assert copy.annotate(progress=lambda *numbers: told.append(numbers)) == (count, True)
    assert told == [(number, count) for number in range(1, count + 1)]
    require_whole(copy)
    attributes, files = copy.attributes(), snapshot(copy.out / "artifacts")
    assert copy.annotate() == (0, False)
    assert (copy.attributes(), snapshot(copy.out / "artifacts")) == (attributes, files)


def test_new_finished_trials_are_added(digits: DataSet, tmp_path: Path) -> None:
    run_search = SearchRunner(digits, tmp_path)
    how: dict[str, Any] = {"space": EIGHT, "recipe": RECIPE, "ways": {"sampler": "random"}}
    run_search(trials=1, name=NAME, **how)
    copy = opened(tmp_path)
    first = copy.annotate().trials
    before, figures = copy.attributes(), copy.shown()["plotly_graph_objects"]
    run_search(trials=2, name=NAME, **how)
    assert copy.annotate() == (len(copy.trials) - first, True)
    require_whole(copy)
    after = copy.attributes()
    changed = {key for key in before if after[key] != before[key]}
    ids = {trial._trial_id for trial in copy.study.trials[:first]}
    assert not [key for key in changed if key.split(":")[1] in map(str, ids)], "notes stand as they were written"
    assert copy.shown()["plotly_graph_objects"] != figures


def test_the_note_of_an_interrupted_trial_names_the_one_that_resumed_it(digits: DataSet, tmp_path: Path) -> None:
    run_search = SearchRunner(digits, tmp_path)
    how: dict[str, Any] = {"space": EIGHT, "recipe": RECIPE, "ways": {"sampler": "random"}, "name": NAME}
    with pytest.raises(KeyboardInterrupt):
        run_search(trials=2, watcher=Watcher(stop_at=2), **how)
    copy = opened(tmp_path)
    interrupted = copy.trial("interrupted")
    copy.annotate()
    assert "**Interrupted: the candidate is to be resumed in another trial.**" in copy.note(interrupted)
    run_search(trials=2, **how)
    copy = opened(tmp_path)
    resumed_in = copy.trials[interrupted.number].resumed_in
    copy.annotate()
    assert f"**Interrupted: the candidate was resumed in trial #{resumed_in}.**" in copy.note(interrupted)
    assert copy.annotate() == (0, False)


CHILD = """
import os, signal, sys, time
from pathlib import Path
from budgetnet.common import files
from budgetnet.visualization.dashboard import annotate, attributes
from budgetnet.study.storage import default_storage, find_study, open_storage

out, instant, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
commit, count = attributes.Attributes.commit, 0

def die_around(self):
    global count
    count += 1
    if (instant, count) == ("before", last):
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self)
    if (instant, count) == ("behind", last):
        os.kill(os.getpid(), signal.SIGKILL)

def die_within(temporary, path):
    os.kill(os.getpid(), signal.SIGKILL)

attributes.Attributes.commit = die_around
if instant == "within":
    files.replace_atomically = die_within
storage = open_storage(default_storage(out), create=False)
print("ready", flush=True)
while instant == "told" and not (out / "go").exists():
    time.sleep(0.005)
annotate(find_study(storage, None), storage, out, progress=lambda *numbers: print(*numbers, flush=True))
"""


def child(out: Path, instant: str = "never", last: int = 0) -> Any:
    """A process that annotates, and kills itself at an instant if told to."""
    arguments = [CHILD, str(out), instant, str(last)]
    return ForkedProcess(arguments, cwd=out, environment=child_environment(), function=python_code)


@pytest.mark.parametrize(
    ("instant", "last"),
    [
        ("before", 1),
        pytest.param("behind", 4, marks=pytest.mark.slow),
        ("before", -1),
        pytest.param("behind", -1, marks=pytest.mark.slow),
    ],
)
def test_kill_at_any_point_leaves_complete_notes(copy: Copy, instant: str, last: int) -> None:
    count = len(copy.trials)
    # The last commit of all is the study's own.
    with child(copy.out, instant, last if last > 0 else count + 1) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    done = {-1: count}.get(last, last - (instant == "before"))
    trials = copy.shown()["trials"]
    assert [bool(each["note"]["body"]) for each in trials] == [number < done for number in range(count)]
    assert [bool(each["artifacts"]) for each in trials] == [number < done for number in range(count)]
    again = copy.annotate()
    assert again == (count - done, (instant, last) != ("behind", -1))
    require_whole(copy)


def test_kill_while_a_file_is_written_leaves_no_partial_file(copy: Copy) -> None:
    with child(copy.out, "within") as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert [path.suffix for path in (copy.out / "artifacts").iterdir() if path.name != LOCK] == [".part"]
    assert copy.annotate() == (len(copy.trials), True)
    require_whole(copy)


def test_a_kill_from_outside_leaves_the_rest_for_later(copy: Copy) -> None:
    with child(copy.out) as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    done = sum(bool(each["note"]["body"]) for each in copy.shown()["trials"])
    assert 3 <= done < len(copy.trials)
    assert copy.annotate() == (len(copy.trials) - done, True)
    require_whole(copy)


def test_two_at_once_write_everything_once(copy: Copy) -> None:
    with child(copy.out, "told") as first, child(copy.out, "told") as second:
        for process in (first, second):
            assert process.stdout.readline() == "ready\n"
        (copy.out / "go").touch()
        written = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum(map(len, written)) == len(copy.trials), "each trial by one of them"
    require_whole(copy)
    versions = [value for key, value in copy.attributes().items() if key.endswith("note_ver")]
    assert versions == [1] * (len(copy.trials) + 1), "no note was written twice"


def test_without_wait_nothing_is_written_while_locked(copy: Copy) -> None:
    from filelock import FileLock

    (copy.out / "artifacts").mkdir()
    with FileLock(copy.out / "artifacts" / LOCK):
        assert copy.annotate(wait=False) == (0, False)
    assert copy.annotate(stopped=lambda: True) == (0, False)
    assert not [key for key in copy.attributes() if "note" in key]


def test_damaged_folder_does_not_stop_others_and_is_repaired_later(copy: Copy) -> None:
    broken, gone, *_ = [trial for trial in copy.trials if trial.outcome == "complete" and not trial.enqueued]
    kept = copy.out.parent / "kept"
    shutil.copytree(copy.out, kept)
    (copy.out / str(broken.run) / "result.json").write_text("{")
    shutil.rmtree(copy.out / str(gone.run))
    copy.annotate()
    for trial, words in ((broken, "is damaged"), (gone, "no such folder")):
        note = copy.note(trial)
        assert "Incomplete: " in note
        assert words in note
        assert "budgetnet train" not in note
        assert set(copy.files(trial)) == {"outline.svg", "spec.yaml"}, "the network is known from the draw"
    others = [trial for trial in copy.trials if trial.spec not in (broken.spec, gone.spec)]
    assert not [trial for trial in others if "missing" in copy.note(trial)]
    assert copy.annotate() == (0, False), "what cannot be read now is not written over and over"
    for trial in (broken, gone):
        shutil.copytree(kept / str(trial.run), copy.out / str(trial.run), dirs_exist_ok=True)
    lacking = [trial for trial in copy.trials if trial.outcome in ("complete", "duplicate")]
    assert copy.annotate().trials == sum(trial.spec in (broken.spec, gone.spec) for trial in lacking)
    require_whole(copy)
    assert "missing" not in copy.note(broken)


def test_a_run_of_another_network_is_not_shown_for_it(copy: Copy) -> None:
    first, second = [trial for trial in copy.trials if trial.outcome == "complete"][:2]
    shutil.rmtree(copy.out / str(first.run))
    shutil.copytree(copy.out / str(second.run), copy.out / str(first.run))
    copy.annotate()
    assert "contains another network" in copy.note(first)


def test_the_folder_of_artifacts_can_be_made_anew(copy: Copy) -> None:
    copy.annotate()
    shutil.rmtree(copy.out / "artifacts")
    copy.annotate()
    require_whole(copy)


def test_files_that_are_missing_are_written_again_after_an_interruption(copy: Copy) -> None:
    copy.annotate()
    shutil.rmtree(copy.out / "artifacts")
    asked = itertools.count()
    # The third trial is not begun.
    assert copy.annotate(stopped=lambda: next(asked) == 2).trials == 2
    assert copy.annotate() == (len(copy.trials) - 2, False)
    require_whole(copy)
    assert copy.annotate() == (0, False)
    # As the dashboard does where a user deletes a file.
    key = next(key for key in copy.attributes() if key.startswith("dashboard:artifacts:"))
    copy.storage.set_study_system_attr(copy.study._study_id, key, json.dumps(None))
    (copy.out / "artifacts" / key.rpartition(":")[2]).unlink()
    assert copy.annotate() == (0, False)


def test_a_folder_without_runs_leaves_the_notes_of_trained_candidates(copy: Copy, tmp_path: Path) -> None:
    copy.annotate()
    trained = [trial for trial in copy.trials if trial.trained]
    before = [copy.note(trial) for trial in trained]
    copy._replace(out=tmp_path / "elsewhere").annotate()
    assert [copy.note(trial) for trial in trained] == before


def test_files_of_another_version_give_way(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("budgetnet.visualization.dashboard.annotating._FORMAT", 0)
        earlier.setattr("budgetnet.visualization.dashboard.artifacts.curves_svg", lambda _: "drawn otherwise")
        copy.annotate()
    assert copy.files(copy.trial("complete"))["learning-curves.svg"] == b"drawn otherwise"
    assert copy.annotate() == (len(copy.trials), True)
    require_whole(copy)
    assert copy.files(copy.trial("complete"))["learning-curves.svg"].startswith(b"<svg ")


def test_user_text_is_kept(copy: Copy) -> None:
    from optuna_dashboard import save_note

    from budgetnet.visualization.dashboard.attributes import Attributes

    page = Attributes(copy.storage, copy.study._study_id)
    frozen = copy.study.trials[0]
    for trial_id in (None, frozen._trial_id):
        page.read("dashboard:")
        save_note(page.page(trial_id), "Mine: **look here**")
        page.commit()
    copy.annotate()
    shown = copy.shown()
    for body in (shown["note"]["body"], shown["trials"][0]["note"]["body"]):
        assert body.startswith("Mine: **look here**\n\n##")
    from budgetnet.visualization.dashboard.overview import study_heading

    # Anything that changes the study has its note written again.
    attributes = Attributes(copy.storage, copy.study._study_id)
    assert len(attributes.read("budgetnet:annotated")) == 1 + len(copy.trials)
    attributes.write("budgetnet:annotated", "made of something else")
    attributes.commit()
    assert copy.annotate() == (0, True)
    body = copy.shown()["note"]["body"]
    assert body.startswith("Mine: **look here**\n\n##")
    assert body.count(study_heading(NAME)) == 1


def test_studies_of_others_are_left_alone(copy: Copy) -> None:
    import optuna

    other = optuna.create_study(storage=copy.storage, study_name="not ours")
    other.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(RecordError, match="was not made by budgetnet"):
        Copy(copy.out, copy.storage, find_study(copy.storage, "not ours")).annotate()
    assert not (copy.out / "artifacts").exists()


def test_it_is_the_same_on_a_postgresql_server(digits: DataSet, postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    ways = {"sampler": "random"}
    SearchRunner(digits, tmp_path, storage=url)(trials=2, name=NAME, space=EIGHT, recipe=RECIPE, ways=ways)
    copy = opened(tmp_path, url)
    assert copy.annotate() == (len(copy.trials), True)
    require_whole(copy)
    assert copy.annotate() == (0, False)
    note = copy.shown()["note"]["body"]
    assert "--storage" in note, "the commands find the study where it is"
    assert PASSWORD not in note
