"""Searches, ablations and reproductions on a Ray cluster of several nodes that hang, die and come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import (
    TINY,
    TINY_SPACE,
    child_environment,
    finished,
    restarts,
    started,
    tiny_recipe,
    until,
    wait_for,
    write_space,
)
from worker_support import answers, command_line, descendants, trials_in

from budgetnet.runs.augmentation import ExampleFilter

if find_spec("ray") is None or not sys.platform.startswith("linux"):
    pytest.skip("needs Ray, and looks for processes in /proc", allow_module_level=True)

from ray_support import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SIZES = ["--device", "cpu", "--train-size", "100", "--validation-size", "40", "--json"]
SEARCH = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", *SIZES]
SEARCH += ["--sampler", "random", "--pruner", "none", "--trials", "4"]
ABLATE = ["ablate", "study.yaml", "--data", "digits", *SIZES]
REPRODUCE = [
    "reproduce",
    "leakage",
    "--spec",
    "spec.yaml",
    "--epochs",
    "30",
    "--seeds",
    "2",
    "--data",
    "digits",
    *SIZES,
]
ON_RAY = ["--engine", "ray", "--workers", "2"]
Undisturbed = Callable[[list[str]], tuple[Path, Any]]


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def cluster(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A head and two other nodes; the variables of the cluster are set for commands."""
    while len(running.nodes) < 2:
        running.add_node()
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    return running


def lay_out(folder: Path, *, epochs: int = 30) -> Path:
    folder.mkdir(exist_ok=True)
    write_space(folder / "space.yaml", TINY_SPACE)
    # Progress is copied at the ends of cycles, however fast the machine is.
    tiny_recipe(epochs=epochs, schedule=restarts(2)).save(folder / "recipe.yaml")
    TINY.save(folder / "spec.yaml")
    study = {"name": "tiny", "spec": "spec.yaml", "recipe": "recipe.yaml", "seeds": 2, "judged_on": "test"}
    study["factors"] = {"recipe.learning_rate": [0.05, 0.01]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run a command in one process of this machine, once, and return its folder and its answer."""
    done: dict[str, tuple[Path, Any]] = {}

    def run(command: list[str]) -> tuple[Path, Any]:
        if command[0] not in done:
            folder = lay_out(tmp_path_factory.mktemp(command[0]))
            answer = finished(*command, cwd=folder)
            assert (answer.returncode, answer.stderr) == (0, "")
            done[command[0]] = folder, json.loads(answer.stdout)
        return done[command[0]]

    return run


def comparable(value: Any) -> Any:
    """Return an answer without the command, folders and times, and without the numbers of trials.

    A candidate that is resumed has a trial of a higher number.
    """
    if isinstance(value, dict):
        differing = {"command", "best_run", "name", "compared_with", "seconds"}
        return {name: comparable(each) for name, each in value.items() if name not in differing}
    return [comparable(each) for each in value] if isinstance(value, list) else value


def in_training(folder: Path, *, epochs: int = 2) -> bool:
    """Return whether a run that is not finished has at least so many epochs in the store."""
    begun = [path.parent for path in (folder / "runs").glob("*/run.json")]
    unfinished = [run for run in begun if not (run / "result.json").exists()]
    tables = [run / "curves.csv" for run in unfinished]
    return any(epochs == 0 or (path.exists() and len(path.read_text().splitlines()) > epochs) for path in tables)


def busy_node(cluster: Cluster, folder: Path, *, epochs: int = 2) -> str | None:
    return cluster.busy_node() if in_training(folder, epochs=epochs) else None


@pytest.mark.parametrize("command", [SEARCH, ABLATE, REPRODUCE], ids=lambda command: command[0])
def test_a_node_that_is_killed_changes_no_answer(
    cluster: Cluster, tmp_path: Path, command: list[str], undisturbed: Undisturbed
) -> None:
    shared = lay_out(tmp_path)
    with started(*command, *ON_RAY, cwd=shared) as process:
        # The networks of the others are trained within less than a second.
        epochs = 2 if command is SEARCH else 0
        cluster.kill(wait_for(lambda: busy_node(cluster, shared, epochs=epochs), process=process))
        out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    alone, expected = undisturbed(command)
    assert answers(shared) == answers(alone)
    assert len(answers(shared)) == 4
    assert comparable(json.loads(out)) == comparable(expected)


def test_a_worker_process_that_is_killed_is_replaced(
    cluster: Cluster, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    shared = lay_out(tmp_path)
    with started(*SEARCH, *ON_RAY, cwd=shared) as process:
        (worker, *_) = wait_for(lambda: cluster.training() if in_training(shared) else [], process=process)
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0
    assert err.count("\n") == err.count(" died while it ") == 1
    assert answers(shared) == answers(undisturbed(SEARCH)[0])


def test_a_node_that_hangs_is_replaced_and_writes_nothing_when_it_wakes(
    cluster: Cluster, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    shared = lay_out(tmp_path)
    with started(*SEARCH, *ON_RAY, cwd=shared) as process:
        node = wait_for(lambda: busy_node(cluster, shared), process=process)
        cluster.send(node, signal.SIGSTOP)
        _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    files = {path: path.read_bytes() for path in (shared / "runs").glob("*/*")}
    cluster.forget(node)
    assert {path: path.read_bytes() for path in (shared / "runs").glob("*/*")} == files
    assert answers(shared) == answers(undisturbed(SEARCH)[0])


def test_a_driver_that_is_killed_leaves_no_workers_and_the_same_command_goes_on(
    cluster: Cluster, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    shared = lay_out(tmp_path)
    with started(*SEARCH, *ON_RAY, cwd=shared) as process:
        wait_for(lambda: in_training(shared), process=process)
        process.kill()
        process.wait()
        until(lambda: not cluster.training())
    again = finished(*SEARCH, *ON_RAY, cwd=shared)
    assert (again.returncode, again.stderr) == (0, "")
    assert answers(shared) == answers(undisturbed(SEARCH)[0])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_workers_end_and_the_same_command_goes_on(
    cluster: Cluster, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    folder = lay_out(tmp_path, epochs=2000)
    with started(*SEARCH, *ON_RAY, cwd=folder) as process:
        wait_for(lambda: in_training(folder), process=process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (code, "")
    assert err == "interrupted: progress is saved, run the same command to resume\n"
    until(lambda: not cluster.training())
    assert {trial.user_attrs["ended"] for trial in trials_in(folder)} == {"interrupted"}


def test_a_candidate_that_kills_its_worker_three_times_is_failed_and_the_search_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path)
    # Epochs long enough for a worker to be killed in its first.
    tiny_recipe(epochs=1, batch_size=2).save(folder / "recipe.yaml")
    killed: list[int] = []
    with started(*SEARCH, "--train-size", "1000", "--engine", "ray", "--workers", "1", cwd=folder) as process:
        for _ in range(3):
            (worker,) = wait_for(
                lambda: [pid for pid in cluster.training() if pid not in killed], process=process, timeout=300
            )
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0
    assert json.loads(out)["trained"] == 4
    *resumed, skipped = err.splitlines()
    assert [line.partition("; ")[2] for line in resumed] == [
        f"the candidate is resumed ({number} of at most 3 deaths in one epoch)" for number in (1, 2)
    ]
    assert skipped.endswith(": its worker process died 3 times in the same epoch")


def test_runs_are_kept_at_a_url_and_fetched(cluster: Cluster, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "folder", epochs=2)
    store = tmp_path / "elsewhere"
    done = finished(*SEARCH, *ON_RAY, "--store", store.as_uri(), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    runs = sorted(path.parent.name for path in (folder / "runs").glob("*/result.json"))
    assert len(runs) == 4
    for run in runs:
        for file in (store / run).glob("[!.]*"):
            assert (folder / "runs" / run / file.name).read_bytes() == file.read_bytes()


def test_the_choices_of_an_example_filter_are_computed_once(cluster: Cluster, tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    tiny_recipe(example_filter=ExampleFilter()).save(folder / "recipe.yaml")

    def choices(*, trials: int) -> dict[str, int]:
        done = finished(*SEARCH[:-1], str(trials), "--engine", "ray", "--workers", "1", cwd=folder)
        assert (done.returncode, done.stderr, json.loads(done.stdout)["trained"]) == (0, "", trials)
        found = (folder / "runs" / "proxies").glob("*/*")
        return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in found}

    first = choices(trials=1)
    assert {Path(name).name for name in first} == {"epoch-1.safetensors", "epoch-2.safetensors", "state.safetensors"}
    assert choices(trials=2) == first, "the second candidate reads what the first has left"


def test_a_store_that_workers_do_not_share_with_the_driver_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    done = finished(*SEARCH, *ON_RAY, "--store", "memory://runs", cwd=lay_out(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: store = 'memory://runs': is not this store on ")
    assert done.stderr.count("\n") == 1


def test_a_worker_of_another_version_is_refused_with_both_versions(cluster: Cluster, tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    code = (
        "import sys; from budgetnet.engines import ray_worker; from budgetnet.cli.main import main\n"
        "own = ray_worker.versions()\n"
        "ray_worker.versions = lambda: {**own, 'budgetnet': '99.0', 'torch': '1.0'}\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, *SEARCH, *ON_RAY]
    done = subprocess.run(
        command, cwd=folder, env=child_environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout) == (1, "")
    from budgetnet.engines.ray_worker import versions

    own = versions()
    rule = f"budgetnet {own['budgetnet']}, here 99.0; torch {own['torch']}, here 1.0"
    assert done.stderr == f"error: a worker has other versions: {rule}\n"


def test_a_connection_that_exists_is_used_and_kept(cluster: Cluster, tmp_path: Path) -> None:
    folder = lay_out(tmp_path, epochs=2)
    code = (
        "import ray, budgetnet\n"
        "ray.init(log_to_driver=False)\n"
        "study = budgetnet.search(space='space.yaml', recipe='recipe.yaml', max_params='20k', device='cpu',\n"
        "    train_size=200, validation_size=40, trials=2, engine='ray', workers=2)\n"
        "assert ray.is_initialized()\n"
        "print(len(study.frame()), ray.cluster_resources()['CPU'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", "3.0"]


def test_without_a_cluster_one_is_started_here_that_nobody_else_can_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = lay_out(tmp_path / "folder")
    with started(*SEARCH, *ON_RAY, cwd=folder) as process:
        wait_for(lambda: in_training(folder), process=process)
        below = {process.pid, *descendants(process.pid)}
        # Ray starts its program also without a dashboard, for this module alone, which serves nothing.
        dashboards = [command_line(pid) for pid in below if "dashboard/dashboard.py" in command_line(pid)]
        assert all("--modules-to-load=UsageStatsHead " in f"{command} " for command in dashboards)
        listening = [address for pid in below for address in sockets_of(pid)]
        out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["trained"] == 4
    assert len(listening) > 3
    assert all(address.startswith("127.") for address in listening)
    until(lambda: not [pid for pid in below if command_line(pid).startswith("ray::")])


def sockets_of(pid: int) -> list[str]:
    """Return the addresses at which a process listens."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            inodes.add(link.readlink().name)
        except OSError:
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                # The last four bytes, in the machine's order, of an IPv4 address or of one within IPv6.
                last = bytes.fromhex(fields[1].partition(":")[0][-8:])[::-1]
                found.append(".".join(map(str, last)))
    return found


def test_an_address_where_nothing_listens_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    folder = lay_out(tmp_path)
    for command in (SEARCH, ABLATE, REPRODUCE):
        done = finished(*command, *ON_RAY, cwd=folder)
        assert (done.returncode, done.stdout) == (2, "")
        rule = "no Ray cluster answers there; ray start --head starts one"
        assert done.stderr == f"error: RAY_ADDRESS = '127.0.0.1:1': {rule}\n"
    assert not (folder / "runs").exists()


def test_without_ray_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(torch.__file__).parents[1].iterdir():
        if entry.name.partition("-")[0] not in {"ray", "budgetnet", "__pycache__"}:
            (packages / entry.name).symlink_to(entry)
    metadata = packages / "budgetnet-0.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(
        "Metadata-Version: 2.1\nName: budgetnet\nVersion: 0.0\nRequires-Dist: ray>=2.55; extra == 'ray'\n"
    )
    path = os.pathsep.join([child_environment()["PYTHONPATH"], str(packages)])
    folder = lay_out(tmp_path / "folder")
    done = subprocess.run(
        [sys.executable, "-S", "-m", "budgetnet", *SEARCH, *ON_RAY],
        cwd=folder,
        env={**child_environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (2, "")
    command = "pip install 'ray>=2.55'"
    assert done.stderr == f"error: --engine = 'ray': needs ray, not installed; to install: {command}\n"
    assert not (folder / "runs").exists()
