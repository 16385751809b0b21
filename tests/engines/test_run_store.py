"""The store of run folders that a cluster's workers share."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from support import TINY, StopAfter, prepare, snapshot, tiny_recipe

from budgetnet.common.errors import BusyError, InputError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.engines.run_store import RunStore, StoreError
from budgetnet.runs.records import RunIdentity
from budgetnet.runs.store import RunFolder
from budgetnet.training.checkpoint import save_tensors
from budgetnet.training.run import is_resumable
from budgetnet.training.trainer import identify, train

RECIPE = tiny_recipe()


@pytest.fixture
def data(digits: DataSet) -> TrainingData:
    return prepare(digits, RECIPE)


@pytest.fixture
def identity(data: TrainingData) -> RunIdentity:
    return identify(TINY, data, RECIPE, seed=0)


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "store")
        return
    memory = fsspec.filesystem("memory")
    yield "memory://bucket/runs"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def contents(url: str) -> dict[str, bytes]:
    """Every file below a URL but those whose names begin with a dot, read with fsspec alone."""
    files, root = fsspec.core.url_to_fs(url)
    found = {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}
    return {name: content for name, content in found.items() if not Path(name).name.startswith(".")}


def local_files(folder: Path) -> dict[str, bytes]:
    files = snapshot(folder)
    return {f"{folder.name}/{name}": content for name, (_, content) in files.items() if not name.startswith(".")}


def train_here(data: TrainingData, out: Path, **changes: Any) -> RunFolder:
    record = train(TINY, data, RECIPE, seed=0, out=out, **changes)
    return RunFolder(record.folder)


def interrupted_after_one_epoch(data: TrainingData, folder: RunFolder) -> None:
    """Leave a run folder with the checkpoint of its first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, RECIPE, seed=0, out=folder.path.parent, pruning=StopAfter(1, error=KeyboardInterrupt()))
    assert folder.checkpoint.exists()


def test_a_run_is_continued_elsewhere_as_if_it_had_never_moved(
    url: str, data: TrainingData, identity: RunIdentity, tmp_path: Path
) -> None:
    undisturbed = train_here(data, tmp_path / "undisturbed")
    first = RunStore(url)
    folder = first.pull(identity, tmp_path / "first", attempt=1)
    assert not folder.path.exists(), "the run is new"
    interrupted_after_one_epoch(data, folder)
    first.push(folder, attempt=1)
    assert contents(url) == local_files(folder.path)

    second = RunStore(url)
    folder = second.pull(identity, tmp_path / "second", attempt=2)
    assert local_files(folder.path) == contents(url)
    moved = train_here(data, tmp_path / "second")
    assert moved.path == folder.path
    second.push(moved, attempt=2)
    assert contents(url) == local_files(moved.path)
    assert not any("checkpoint" in name for name in contents(url)), "a finished run has none"

    copies = RunStore(url).fetch(folder.path.name, tmp_path / "out")
    fetched = RunFolder(tmp_path / "out" / folder.path.name)
    assert copies[-1].name == "result.json", "its presence implies the other files"
    assert fetched.best.read_bytes() == undisturbed.best.read_bytes()
    assert fetched.load().result.best_epoch == undisturbed.load().result.best_epoch


def test_only_what_has_changed_is_copied(url: str, data: TrainingData, identity: RunIdentity, tmp_path: Path) -> None:
    store = RunStore(url)
    folder = store.pull(identity, tmp_path / "scratch", attempt=1)
    interrupted_after_one_epoch(data, folder)
    store.push(folder, attempt=1)

    files, root = fsspec.core.url_to_fs(url)

    def overwrite(name: str) -> None:
        files.pipe_file(f"{root}/{folder.path.name}/{name}", b"not copied again")

    overwrite("best.safetensors")
    store.push(folder, attempt=1)
    assert contents(url)[f"{folder.path.name}/best.safetensors"] == b"not copied again"
    folder.write_curves([])
    store.push(folder, attempt=1)
    assert contents(url)[f"{folder.path.name}/curves.csv"].startswith(b"epoch,")
    assert contents(url)[f"{folder.path.name}/best.safetensors"] == b"not copied again"

    # What was fetched is in the store already.
    again = RunStore(url)
    folder = again.pull(identity, tmp_path / "again", attempt=2)
    overwrite("run.json")
    again.push(folder, attempt=2)
    assert contents(url)[f"{folder.path.name}/run.json"] == b"not copied again"


def test_the_result_is_copied_last(data: TrainingData, identity: RunIdentity, tmp_path: Path) -> None:
    store = RunStore(str(tmp_path / "store"))
    folder = store.pull(identity, tmp_path / "scratch", attempt=1)
    train_here(data, tmp_path / "scratch")
    store.push(folder, attempt=1)
    files = snapshot(tmp_path / "store" / folder.path.name)
    assert max(files, key=lambda name: files[name][0]) == "result.json"


def test_an_attempt_that_was_replaced_cannot_write(
    url: str, data: TrainingData, identity: RunIdentity, tmp_path: Path
) -> None:
    old, new = RunStore(url), RunStore(url)
    folder = old.pull(identity, tmp_path / "old", attempt=1)
    interrupted_after_one_epoch(data, folder)
    old.push(folder, attempt=1)
    new.pull(identity, tmp_path / "new", attempt=2)
    before = contents(url)
    folder.write_curves([])
    folder.checkpoint.unlink()
    with pytest.raises(BusyError, match="another worker has taken over this run"):
        old.push(folder, attempt=1)
    with pytest.raises(BusyError, match="another worker has taken over this run"):
        old.pull(identity, tmp_path / "late", attempt=1)
    assert contents(url) == before
    # Nor may it remove what the later one has written.
    folder = RunFolder(tmp_path / "late" / folder.path.name)
    assert not folder.path.exists()
    new.pull(identity, tmp_path / "new", attempt=2)
    assert contents(url) == before


def test_a_run_that_was_pruned_and_is_trained_on_loses_its_result(
    url: str, data: TrainingData, identity: RunIdentity, tmp_path: Path
) -> None:
    store = RunStore(url)
    folder = store.pull(identity, tmp_path / "first", attempt=1)
    train_here(data, tmp_path / "first")
    store.push(folder, attempt=1)
    folder = store.pull(identity, tmp_path / "second", attempt=2)
    folder.reopen()
    store.push(folder, attempt=2)
    names = set(contents(url))
    assert f"{folder.path.name}/result.json" not in names
    assert f"{folder.path.name}/pruned/epoch-2/result.json" in names


def test_a_folder_that_runs_share_is_copied_both_ways(url: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first" / "proxies", tmp_path / "second"
    for name in ("key/epoch-1", "key/.lock", "other/epoch-1"):
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text(name)
    store = RunStore(url)
    store.fetch_shared("proxies/key", tmp_path / "first")
    store.push_shared(first, "proxies")
    assert set(contents(url)) == {"proxies/key/epoch-1", "proxies/other/epoch-1"}
    RunStore(url).fetch_shared("proxies/key", second)
    copies = {file.relative_to(second).as_posix(): file.read_text() for file in second.rglob("*") if file.is_file()}
    assert copies == {"proxies/key/epoch-1": "key/epoch-1"}


def test_a_run_trained_under_another_name_is_found(
    url: str, data: TrainingData, identity: RunIdentity, tmp_path: Path
) -> None:
    store = RunStore(url)
    folder = store.pull(identity, tmp_path / "first", attempt=1)
    interrupted_after_one_epoch(data, folder)
    store.push(folder, attempt=1)
    files, root = fsspec.core.url_to_fs(url)
    renamed = f"other-{identity.short_digest}"
    files.mv(f"{root}/{folder.path.name}", f"{root}/{renamed}", recursive=True)
    found = RunStore(url).pull(identity, tmp_path / "second", attempt=2)
    assert found.path.name == renamed
    assert found.checkpoint.exists()


def test_driver_and_worker_know_whether_they_see_the_same_store(url: str, tmp_path: Path) -> None:
    RunStore(url).leave_mark("one")
    assert RunStore(url).has_mark("one")
    assert not RunStore(url).has_mark("two")
    assert not RunStore(str(tmp_path / "other")).has_mark("one")
    # Another driver of the same store.
    RunStore(url).leave_mark("two")
    assert RunStore(url).has_mark("one")
    RunStore(url).remove_mark("two")
    assert [RunStore(url).has_mark(name) for name in ("one", "two")] == [True, False]
    RunStore(url).remove_mark("two")


@pytest.mark.parametrize(
    ("epoch", "best", "best_weights_of", "expected"),
    [
        (3, 2, 2, True),
        (3, 3, 3, True),
        # The worker was killed before it wrote the best weights, which are those of the checkpoint.
        (3, 3, 1, True),
        (1, 1, None, True),
        # It was killed between the two copies.
        (3, 2, 4, False),
        (5, 4, 2, False),
        (5, 4, None, False),
    ],
)
def test_copies_of_different_epochs_are_told_from_those_of_one_moment(
    epoch: int, best: int, best_weights_of: int | None, expected: bool, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    assert is_resumable(folder), "it is new"
    save_tensors(folder.checkpoint, {}, about={"progress": {"epoch": epoch, "best_epoch": best}})
    if best_weights_of is not None:
        save_tensors(folder.best, {}, about={"epoch": best_weights_of})
    assert is_resumable(folder) == expected
    folder.checkpoint.write_bytes(b"damaged")
    assert is_resumable(folder), "which the run itself says"


def test_partial_files_of_a_killed_worker_are_removed(identity: RunIdentity, tmp_path: Path) -> None:
    part = tmp_path / "store" / identity.run_id / ".curves.csv.x1.part"
    part.parent.mkdir(parents=True)
    part.write_text("half a ro")
    RunStore(str(tmp_path / "store")).pull(identity, tmp_path / "scratch", attempt=1)
    assert not part.exists()


@pytest.mark.parametrize("url", ["s4://bucket/runs", "s3//:bucket://x"])
def test_a_protocol_that_nobody_knows_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"^store = .*: cannot be opened: .*[Pp]rotocol.* not known"):
        RunStore(url)


def test_a_package_that_is_missing_is_named() -> None:
    missing = [("s3://bucket/runs", "s3fs"), ("gs://bucket/runs", "gcsfs"), ("abfs://bucket/runs", "adlfs")]
    absent = [(url, package) for url, package in missing if importlib.util.find_spec(package) is None]
    assert absent
    for url, package in absent:
        with pytest.raises(InputError, match=f"^store = '{url}': needs a package: .*{package}"):
            RunStore(url)


def test_a_store_that_cannot_be_written_says_so_in_one_line(identity: RunIdentity, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = RunStore(str(tmp_path / "file"))
    for write in (lambda: store.leave_mark("x"), lambda: store.pull(identity, tmp_path / "scratch", attempt=1)):
        with pytest.raises(StoreError, match=f"^{tmp_path}/file.*: (Not a directory|File exists)$") as caught:
            write()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("code", "lasting"), [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ETIMEDOUT, False)])
def test_errors_that_may_pass_are_told_from_those_that_do_not(code: int, lasting: bool) -> None:
    error = StoreError.of(OSError(code, "text of the system"), "s3://user:secret@host/runs")
    assert error.lasting is lasting
    assert str(error) == "s3://user:***@host/runs: text of the system"


def test_the_path_of_a_local_store_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunStore("runs").url == str(tmp_path / "runs")
    assert RunStore("memory://bucket/runs").url == "memory://bucket/runs"
