"""TensorBoard and MLflow log every epoch of the run folders once, and their errors do not stop training."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_support import SearchRunner, Watcher
from support import TINY, RunCommand, StopAfter, prepare, restarts, tiny_recipe
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tracker_support import Points, Store, curves_of, mlflow_runs

from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.runs.records import Epoch
from budgetnet.runs.store import RunFolder
from budgetnet.training.callbacks import Callbacks
from budgetnet.training.trackers import MLflow, TensorBoard, make_tracker
from budgetnet.training.trainer import train

CYCLES = tiny_recipe(epochs=4, schedule=restarts(1, minimum=0.001))
"""Four cycles of one epoch, so that half of the candidates are pruned after the first."""
KINDS = ["tensorboard", "mlflow"]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow database without runs, copied for each test as creating one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MLflow(f"sqlite:///{path}")
    return path


@pytest.fixture
def make_store(tmp_path: Path, template: Path) -> Callable[[str], Store]:
    return lambda kind: Store(kind, tmp_path, template)


@pytest.fixture
def search(digits: DataSet, tmp_path: Path) -> SearchRunner:
    return SearchRunner(digits, tmp_path / "runs")


def assert_logged(logged: dict[str, Points], run: Path) -> None:
    """Assert that exactly the epochs of a run folder are logged, each once and in order."""
    for name, points in curves_of(run).items():
        assert [step for step, _ in logged[name]] == [step for step, _ in points]
        assert [value for _, value in logged[name]] == pytest.approx([value for _, value in points], rel=1e-6)


def folders(search: SearchRunner) -> list[Path]:
    return [path for path in search.out.iterdir() if path.is_dir()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_is_logged_as_in_its_run_folders(
    kind: str, search: SearchRunner, make_store: Callable[[str], Store]
) -> None:
    store = make_store(kind)
    outcome = search(trials=6, recipe=CYCLES, watcher=store.tracker(), ways={"pruner": "asha"})
    logged = store.runs()
    assert set(logged) == {path.name for path in folders(search)}
    statuses = set()
    for trial in outcome.study.get_trials():
        if "run" not in trial.user_attrs:
            continue
        folder = search.out / trial.user_attrs["run"]
        assert_logged(logged[folder.name], folder)
        result = json.loads((folder / "result.json").read_text())
        statuses.add(result["status"])
        accuracy = result["validation_correct"] / result["validation_images"]
        ((step, best),) = logged[folder.name]["best/validation_accuracy"]
        assert step == result["epochs"]
        assert best == pytest.approx(accuracy)
    assert statuses == {"complete", "stopped"}, "the test needs both"


@pytest.mark.slow
def test_mlflow_logs_trial_and_sampled_parameters(search: SearchRunner, make_store: Callable[[str], Store]) -> None:
    store = make_store("mlflow")
    outcome = search(trials=12, recipe=CYCLES, watcher=store.tracker(), ways={"pruner": "asha"}, enqueued=(TINY,))
    trials = {trial.user_attrs["run"]: trial for trial in outcome.study.get_trials() if "trained" in trial.user_attrs}
    runs = mlflow_runs(store.uri)
    assert len(runs) == len(trials) == 12
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}, "the test needs both"
    for run in runs:
        tags, params, trial = run.data.tags, run.data.params, trials[run.data.tags["budgetnet.run"]]
        assert run.info.run_name == tags["budgetnet.run"]
        assert (tags["budgetnet.study"], tags["budgetnet.trial"]) == ("study", str(trial.number))
        assert tags["budgetnet.spec"] == trial.user_attrs["spec"]
        assert tags["budgetnet.run"].endswith(tags["budgetnet.digest"][:10])
        assert {
            name.removeprefix("sampled."): value for name, value in params.items() if name.startswith("sampled.")
        } == {name: str(value) for name, value in trial.params.items()}
        assert (params["params"], params["macs"]) == (str(trial.user_attrs["params"]), str(trial.user_attrs["macs"]))
        assert (params["seed"], params["recipe.learning_rate"], params["recipe.schedule.first_cycle"]) == (
            "0", "0.05", "1",
        )  # fmt: skip
        ended = {"complete": "FINISHED", "stopped": "KILLED"}[trial.user_attrs["status"]]
        assert (run.info.status, tags["budgetnet.ended"]) == (ended, trial.user_attrs["ended"])


@pytest.mark.parametrize(
    ("error", "status", "ended"),
    [
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (OSError(28, "No space left on device"), "KILLED", "interrupted"),
        (RuntimeError("no good"), "FAILED", "RuntimeError: no good"),
    ],
)
def test_mlflow_logs_an_interruption_and_continues_the_run(
    digits: DataSet, tmp_path: Path, make_store: Callable[[str], Store], error: BaseException, status: str, ended: str
) -> None:
    store, recipe = make_store("mlflow"), tiny_recipe(epochs=3)
    data, out = prepare(digits, recipe), tmp_path / "runs"
    with pytest.raises(type(error)):
        train(TINY, data, recipe, seed=0, out=out, callback=store.tracker(), pruning=StopAfter(2, error=error))
    (run,) = mlflow_runs(store.uri)
    assert (run.info.status, run.data.tags["budgetnet.ended"]) == (status, ended)
    record = train(TINY, data, recipe, seed=0, out=out, callback=store.tracker())
    (again,) = mlflow_runs(store.uri)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert_logged(store.runs()[record.folder.name], record.folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop_at", [1, 2])
def test_missed_epochs_are_logged_when_the_run_is_resumed(
    kind: str, stop_at: int, search: SearchRunner, make_store: Callable[[str], Store]
) -> None:
    store, recipe = make_store(kind), tiny_recipe(epochs=3)
    # The watcher raises first, so the tracker does not receive this epoch although it is saved.
    with pytest.raises(KeyboardInterrupt):
        search(trials=2, recipe=recipe, watcher=Callbacks([Watcher(stop_at=stop_at), store.tracker()]))
    missed = [path for path in folders(search) if not RunFolder(path).finished]
    assert [len(RunFolder(path).read_curves()) for path in missed] == [1]
    assert "validation/loss" not in store.runs()[missed[0].name]
    search(trials=2, recipe=recipe, watcher=store.tracker())
    logged = store.runs()
    assert len(logged) == 2
    for folder in folders(search):
        assert_logged(logged[folder.name], folder)


def test_a_truncated_event_is_logged_again_when_the_run_is_resumed(
    digits: DataSet, tmp_path: Path, make_store: Callable[[str], Store]
) -> None:
    store, recipe, out = make_store("tensorboard"), tiny_recipe(epochs=3), tmp_path / "runs"
    data, pruning = prepare(digits, recipe), StopAfter(2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(TINY, data, recipe, seed=0, out=out, callback=store.tracker(), pruning=pruning)
    (events,) = tmp_path.glob("tensorboard/*/events*")
    events.write_bytes(events.read_bytes()[:-10])
    ((logged,), (folder,)) = store.runs().values(), [path for path in out.iterdir() if path.is_dir()]
    assert [step for step, _ in logged["train/loss"]] == [1], "the second epoch is lost"
    train(TINY, data, recipe, seed=0, out=out, callback=store.tracker())
    assert_logged(store.runs()[folder.name], folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_already_complete_is_logged_once(
    kind: str, digits: DataSet, tmp_path: Path, make_store: Callable[[str], Store]
) -> None:
    store, recipe = make_store(kind), tiny_recipe(epochs=3)
    data = prepare(digits, recipe)
    record = train(TINY, data, recipe, seed=0, out=tmp_path / "runs")
    for _ in range(2):
        train(TINY, data, recipe, seed=0, out=tmp_path / "runs", callback=store.tracker())
        (logged,) = store.runs().values()
        assert_logged(logged, record.folder)
        assert {name: len(points) for name, points in logged.items() if name.startswith(("best/", "epochs"))} == {
            "best/epoch": 1, "best/validation_accuracy": 1, "best/validation_loss": 1, "epochs": 1,
        }  # fmt: skip


def test_a_pruned_run_that_is_trained_again_is_logged_once_in_tensorboard(
    digits: DataSet, tmp_path: Path, make_store: Callable[[str], Store]
) -> None:
    store, recipe, out = make_store("tensorboard"), tiny_recipe(epochs=3), tmp_path / "runs"
    data = prepare(digits, recipe)
    options: dict[str, Any] = {"seed": 0, "out": out, "callback": store.tracker()}
    assert train(TINY, data, recipe, pruning=StopAfter(2), **options).result.status == "stopped"
    record = train(TINY, data, recipe, **options)
    events = EventAccumulator(str(tmp_path / "tensorboard" / record.folder.name)).Reload()
    assert_logged({name: [(e.step, e.value) for e in events.Scalars(name)] for name in curves_of(record.folder)},
                record.folder)  # fmt: skip
    assert [event.value for event in events.Scalars("epochs")] == [3]


def test_tensorboard_logs_hyperparameters(digits: DataSet, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    tracker = TensorBoard(tmp_path / "board")
    record = train(TINY, prepare(digits, recipe), recipe, seed=3, out=tmp_path / "runs", callback=tracker)
    events = EventAccumulator(str(tmp_path / "board" / record.folder.name)).Reload()
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (hparams["seed"].number_value, hparams["params"].number_value) == (3, TINY.params)
    assert hparams["network"].string_value == TINY.label
    assert hparams["recipe.batch_size"].number_value == 16


@pytest.mark.parametrize("kind", ["tensorboard", pytest.param("mlflow", marks=pytest.mark.slow)])
def test_a_failing_tracker_does_not_change_the_search(
    kind: str, digits: DataSet, tmp_path: Path, make_store: Callable[[str], Store], caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(kind)

    class Saboteur(Watcher):
        def on_epoch_end(self, epoch: Epoch, *, worker: int) -> None:
            super().on_epoch_end(epoch, worker=worker)
            if len(self.epochs) == 3:
                store.make_unavailable()

    found = []
    for out, watcher in (("plain", Watcher()), ("tracked", Callbacks([Saboteur(), store.tracker()]))):
        outcome = SearchRunner(digits, tmp_path / out)(trials=4, recipe=tiny_recipe(epochs=2), watcher=watcher)
        found.append([(trial.params, trial.value, trial.user_attrs.get("run")) for trial in outcome.study.get_trials()])
    assert found[0] == found[1]
    warnings = [each.getMessage() for each in caplog.records if each.name.startswith("budgetnet")]
    assert len(warnings) == 1
    assert "logging is disabled after an error, training continues: " in warnings[0]
    assert "\n" not in warnings[0]


def test_an_unreachable_server_is_reported_once(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as bound:
        # Bound, but not listening.
        bound.bind(("127.0.0.1", 0))
        tracker = MLflow(f"http://127.0.0.1:{bound.getsockname()[1]}")
        SearchRunner(digits, tmp_path)(trials=3, watcher=tracker)
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("budgetnet")]
    assert warning.startswith("MLflow logging is disabled")
    assert tracker.failure is not None


OPTIONS = ["train", "spec.yaml", "--recipe", "recipe.yaml", "--train-size", "64", "--validation-size", "40"]
OPTIONS += ["--device", "cpu"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    TINY.save(tmp_path / "spec.yaml")
    tiny_recipe().save(tmp_path / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_and_ablate_log_to_trackers_in_their_folders(folder: Path, tell: RunCommand, template: Path) -> None:
    store = Store("mlflow", folder, template)
    assert tell(*OPTIONS, "--track", "tensorboard", "--track", f"mlflow:{store.uri}").code == 0
    (run,) = [path.parent for path in folder.glob("runs/*/result.json")]
    board = Store("tensorboard", folder / "runs", template)
    for logged in (store.runs(), board.runs()):
        assert set(logged) == {run.name}
        assert_logged(logged[run.name], run)
    study = {"spec": "spec.yaml", "recipe": "recipe.yaml", "factors": {"recipe.learning_rate": [0.05, 0.2]}, "seeds": 2}
    (folder / "study.yaml").write_text(json.dumps(study))
    sizes = ["--train-size", "64", "--validation-size", "40", "--device", "cpu", "--out", "ablated"]
    result = tell("ablate", "study.yaml", *sizes, "--track", "tensorboard")
    assert result.code == 0, result.err
    runs = [path.parent for path in folder.glob("ablated/*/result.json")]
    logged = Store("tensorboard", folder / "ablated", template).runs()
    assert set(logged) == {path.name for path in runs}
    assert len(runs) == 4
    for run in runs:
        assert_logged(logged[run.name], run)


@pytest.mark.parametrize("name", KINDS)
def test_a_tracker_that_is_not_installed_is_reported_before_training(
    folder: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("budgetnet.common.extras.find_spec", lambda _: None)
    result = tell(*OPTIONS, "--track", name)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert f"to install: pip install '{name}" in result.err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("wandb", "must be tensorboard"),
        ("tensorboard:", "must be tensorboard"),
        ("mlflow:file:./mlruns", "is not a store that MLflow can use"),
        ("mlflow:ftp://somewhere", "is not a store that MLflow can use"),
        ("mlflow:sqlite:////proc/none/mlflow.db", "is not a store that MLflow can use"),
    ],
)
def test_an_invalid_tracker_is_reported_in_one_line(folder: Path, tell: RunCommand, text: str, rule: str) -> None:
    result = tell(*OPTIONS, "--track", text)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result.err
    assert result.err.startswith(f"error: --track = '{text}': {rule}")
    assert not (folder / "runs").exists()


def test_default_location_of_mlflow(tmp_path: Path) -> None:
    make_tracker("mlflow", out=tmp_path / "runs", field="--track")
    assert (tmp_path / "runs" / "mlflow.db").exists()
    with pytest.raises(InputError, match="must be tensorboard"):
        make_tracker("mlflow:", out=tmp_path, field="--track")
