"""The runner of studies, as a process in a repository of its own: finished, killed, failed, locked, updated."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import TINY, child_environment, tiny_recipe, wait_for

from budgetnet.common.cpu import available_cores

ROOT = Path(__file__).parents[2]
TRAIN = ["budgetnet", "train", "tiny.yaml", "--data", "{data}", "--train-size", "64", "--out", "{out}"]
EVALUATE = {"argv": ["budgetnet", "evaluate", "{out}/*-s[0-9]*-*", "--on", "test", "--json"], "stdout": "evaluate.json"}


def study(name: str, *commands: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "question": "?", "folder": name, "core_hours": 0.1, "commands": list(commands), **fields}


def git(*arguments: str, folder: Path) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Repository:
    """A git repository with the package, the runner and a list of studies, and a place to run them in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder / "repository", folder / "out"
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "budgetnet", self.folder / "budgetnet", ignore=ignore)
        shutil.copytree(ROOT / "studies" / "runner", self.folder / "studies" / "runner", ignore=ignore)
        # The runner and its commands may leave bytecode.
        shutil.copy(ROOT / ".gitignore", self.folder)
        TINY.save(self.folder / "tiny.yaml")
        tiny_recipe().save(self.folder / "recipe.yaml")
        git("init", "--quiet", folder=self.folder)
        self.processes: list[subprocess.Popen[str]] = []

    def commit(self, *studies: dict[str, Any]) -> str:
        """Commits a list of studies, and gives the commit."""
        order = {"schema_version": 1, "studies": list(studies)}
        (self.folder / "studies" / "order.yaml").write_text(yaml.safe_dump(order))
        git("add", "--all", folder=self.folder)
        git("commit", "--quiet", "--allow-empty", "--message", "studies", folder=self.folder)
        return git("rev-parse", "HEAD", folder=self.folder)

    def start(self, *options: str) -> subprocess.Popen[str]:
        # At the lowest priority nothing is run for long on a machine that runs other tests.
        out = ["--out", str(self.out)]
        process = subprocess.Popen(
            [sys.executable, "studies/runner", "--priority", "normal", "--data", "digits", *out, *options],
            cwd=self.folder,
            env={**child_environment(), "PYTHONPATH": str(self.folder), "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *options: str) -> tuple[int, str, str]:
        process = self.start(*options)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def state(self, name: str) -> dict[str, Any]:
        path = self.out / "status.json"
        found: dict[str, Any] = json.loads(path.read_text())["studies"].get(name, {}) if path.exists() else {}
        return found

    def rows(self, name: str) -> list[dict[str, str]]:
        """The curves of a study's only run."""
        for path in (self.out / "runs" / name).glob("*/curves.csv"):
            with path.open() as stream:
                return list(csv.DictReader(stream))
        return []

    def epochs(self, name: str) -> int:
        return len(self.rows(name))

    def log(self, name: str) -> str:
        return (self.out / "logs" / f"{name}.log").read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
def test_studies_are_run_in_order_and_a_failed_one_does_not_stop_the_next(repository: Repository) -> None:
    train = {"argv": [*TRAIN, "--epochs", "1", "--seed", "{seed}"]}
    fail = {"argv": ["python", "-c", "import sys; print('to the log'); sys.exit(7)"]}
    answers_no = {"argv": ["python", "-c", "import sys; print('no'); sys.exit(4)"], "exit_codes": [0, 4]}
    commit = repository.commit(
        study("first", train, EVALUATE, seeds=[0, 1]),
        study("failing", fail, {"argv": ["python", "-c", "print('never')"]}),
        study("absent", {"argv": ["budgetnet", "check", "studies/absent/spec.yaml"]}),
        study("last", {**answers_no, "stdout": "answer.txt"}),
    )
    (repository.folder / "tiny.yaml").write_text("not committed")
    code, out, err = repository.run()
    assert (code, err) == (1, "")
    assert "uncommitted changes of 1 files are not included" in out
    assert "absent: not ready: studies/absent/spec.yaml is missing" in out
    assert [repository.state(name).get("state") for name in ("first", "failing", "absent", "last")] == [
        "finished",
        "failed",
        None,
        "finished",
    ]
    assert {repository.state(name)["commit"] for name in ("first", "failing", "last")} == {commit}
    assert repository.state("failing")["exit_code"] == 7
    assert "ended with exit code 7" in repository.state("failing")["reason"]
    assert "to the log" in repository.log("failing")
    assert "never" not in repository.log("failing").splitlines()
    records = repository.out / "records"
    assert (records / "last" / "answer.txt").read_text() == "no\n"
    runs = sorted(path.name for path in (records / "first" / "runs").iterdir())
    assert [run.split("-")[-2] for run in runs] == ["s0", "s1"]
    assert sorted(path.name for path in (records / "first" / "runs" / runs[0]).iterdir()) == [
        "curves.csv",
        "environment.json",
        "result.json",
        "run.json",
        "test.json",
    ]
    assert len((records / "first" / "test-openings.jsonl").read_text().splitlines()) == 1
    kept = "".join(path.read_text() for path in records.rglob("*") if path.is_file())
    assert str(repository.out) not in kept, "no record holds a path of this machine"

    # What is finished is not run again, what failed is.
    before = repository.state("first"), repository.log("first")
    code, out, _ = repository.run()
    assert code == 1
    assert (repository.state("first"), repository.log("first")) == before
    assert repository.log("failing").splitlines().count("to the log") == 2
    assert "last: started" not in out

    code, out, _ = repository.run("--status")
    assert code == 0
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if line.startswith("│")}
    assert "finished" in lines["first"] and commit[:10] in lines["first"]
    assert "exit code 7" in out
    assert "pending" in lines["absent"] and "not ready" in lines["absent"]

    code, out, _ = repository.run("--collect")
    assert code == 0
    collected = repository.folder / "studies" / "first"
    assert (collected / "evaluate.json").read_bytes() == (records / "first" / "evaluate.json").read_bytes()
    assert (collected / "runs" / runs[0] / "curves.csv").exists()
    assert not (repository.folder / "studies" / "failing").exists()


@pytest.mark.slow
def test_a_killed_runner_takes_its_command_with_it_and_goes_on(repository: Repository) -> None:
    long = 10_000
    repository.commit(study("long", {"argv": [*TRAIN, "--recipe", "recipe.yaml", "--epochs", str(long)]}))
    process = repository.start()
    before = wait_for(lambda: repository.epochs("long"), process=process)
    # Another runner is refused while this one runs, and the status says how far it is.
    code, _, err = repository.run()
    assert (code, err.count("\n")) == (2, 1)
    assert "another runner is running" in err
    _, out, _ = repository.run("--status")
    assert "running" in out
    assert f"of at most {long:,} epochs" in out
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, out, _ = repository.run("--status")
    assert "interrupted" in out, "a killed runner could not say so itself"
    # Training has stopped: the run folder's lock is free, and the curves stay as they are.
    left, kept = repository.epochs("long"), repository.rows("long")
    assert before <= left < long
    repository.run("--status")
    assert repository.epochs("long") == left
    started = repository.start()
    wait_for(lambda: repository.epochs("long") > left, process=started)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "interrupted: run the same command again to resume" in err
    assert repository.state("long")["state"] == "interrupted"
    assert repository.state("long")["exit_code"] is None
    # The times of the epochs before the kill are still there, so they were not trained again; but for the last, whose
    # row is written before its checkpoint.
    assert repository.rows("long")[: left - 1] == kept[:-1]


@pytest.mark.slow
def test_an_unfinished_run_is_resumed_on_another_machine(repository: Repository) -> None:
    long = study("long", {"argv": [*TRAIN, "--recipe", "recipe.yaml", "--epochs", "10000"]}, out="shared")
    repository.commit(long, study("other", {"argv": ["true"]}, out="shared"))
    assert repository.run("--save-unfinished")[:2] == (0, f"no unfinished runs in {repository.out / 'runs'}\n")
    process = repository.start()
    wait_for(lambda: repository.epochs("shared") > 1, process=process)
    code, _, err = repository.run("--save-unfinished")
    assert (code, err.count("\n")) == (2, 1)
    assert "interrupt it first" in err
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    kept = repository.rows("shared")
    assert len(kept) < 10_000
    code, out, _ = repository.run("--save-unfinished")
    assert (code, out.count("\n")) == (0, 1)
    (saved,) = (repository.folder / "studies" / "unfinished" / "shared").iterdir()
    assert saved.name in out
    assert not list(saved.glob(".*"))

    repository.commit(long)
    repository.out = repository.out.with_name("other-machine")
    process = repository.start()
    wait_for(lambda: repository.epochs("shared") > len(kept), process=process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert f"long: resuming {saved.name} from studies/unfinished" in out
    # With their times: these epochs were not trained again, but for the last if it was stopped before its checkpoint.
    assert repository.rows("shared")[: len(kept) - 1] == kept[:-1]
    # A run folder that is there is not replaced by the older one.
    progress = repository.epochs("shared")
    process = repository.start()
    wait_for(lambda: repository.epochs("shared") > progress, process=process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert "resuming" not in out


@pytest.mark.slow
def test_the_checkout_changes_only_when_it_is_told_to(repository: Repository) -> None:
    say = "import budgetnet; print(open('word').read(), budgetnet.__file__)"
    command = {"argv": ["python", "-c", say], "stdout": "said.txt"}
    (repository.folder / "word").write_text("old")
    first = repository.commit(study("one", command))
    assert repository.run()[0] == 0
    (repository.folder / "word").write_text("new")
    second = repository.commit(study("one", command), study("two", command))
    _, out, _ = repository.run("--status")
    assert "--update takes the repository's HEAD" in out
    assert repository.run()[0] == 0
    assert repository.state("two") == {}
    assert repository.run("--update")[0] == 0
    assert (repository.state("one")["commit"], repository.state("two")["commit"]) == (first, second)
    for name, word in (("one", "old"), ("two", "new")):
        said = (repository.out / "records" / name / "said.txt").read_text().split()
        assert said == [word, str(repository.out / "checkout" / "budgetnet" / "__init__.py")]
    # Asked for by its name, a finished one is run again.
    assert repository.run("--only", "one")[0] == 0
    assert repository.state("one")["commit"] == second


@pytest.mark.slow
def test_data_in_a_file_are_named_without_their_path(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "images.npz").write_bytes(b"images")
    command = {"argv": ["python", "-c", "import sys; print(sys.argv[1:], open('images.npz').read())", "{data}"]}
    repository.commit(study("one", {"argv": [*command["argv"], "{declare}"], "stdout": "said.txt"}))
    data = f"arrays:{tmp_path / 'images.npz'}"
    assert repository.run("--data", data, "--declare", "cifar10")[0] == 0
    said = (repository.out / "records" / "one" / "said.txt").read_text()
    assert said == "['arrays:images.npz', '--declare', 'cifar10'] images\n"
    code, _, err = repository.run("--data", "digits")
    assert (code, err.count("\n")) == (2, 1)
    assert "name another --out" in err
    code, _, err = repository.run("--data", "arrays:absent.npz")
    assert code == 2
    assert "no such file or folder" in err


@pytest.mark.parametrize(("options", "threads"), [((), 1), (("--threads", str(available_cores())), available_cores())])
def test_trainings_have_the_given_number_of_threads(
    repository: Repository, options: tuple[str, ...], threads: int
) -> None:
    repository.commit(study("one", {"argv": ["sh", "-c", "echo $OMP_NUM_THREADS"], "stdout": "said.txt"}))
    assert repository.run(*options)[0] == 0
    assert (repository.out / "records" / "one" / "said.txt").read_text() == f"{threads}\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chrt") is None, reason="no chrt, as outside Linux")
def test_commands_get_a_core_only_where_nothing_else_wants_it(repository: Repository) -> None:
    repository.commit(study("one", {"argv": ["sh", "-c", "chrt -p $$; nice"], "stdout": "said.txt"}))
    assert repository.run("--priority", "idle")[0] == 0
    said = (repository.out / "records" / "one" / "said.txt").read_text()
    assert "SCHED_IDLE" in said
    assert said.splitlines()[-1] == "19"


@pytest.mark.parametrize(("runs", "packed"), [(100, False), (101, True)])
def test_records_of_many_runs_are_packed_into_one_file(tmp_path: Path, runs: int, packed: bool) -> None:
    records = tmp_path / "out" / "records" / "many"
    contents = {f"runs/run-{number}/result.json": f'{{"number": {number}}}'.encode() for number in range(runs)}
    openings = b'{"runs": ["run-0"]}\n'
    for name, content in {**contents, "results.csv": b"a,b\n", "test-openings.jsonl": openings}.items():
        (records / name).parent.mkdir(parents=True, exist_ok=True)
        (records / name).write_bytes(content)
    target = tmp_path / "repository" / "studies" / "many"
    target.mkdir(parents=True)
    (target / "test-openings.jsonl").write_bytes(b'{"runs": ["of another study"]}\n')
    unfinished = target.parent / "unfinished" / "many"
    for run in ("run-0", "of-another-study"):
        (unfinished / run).mkdir(parents=True)
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, "studies/runner")
import study_records, study_order
study = study_order.Study(name="many", question="?", folder="many", core_hours=1, commands=[{{"argv": ["true"]}}])
print(study_records.collect(study, records=Path({str(records)!r}), repository=Path({str(target.parents[1])!r})))
"""
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=True
        )
        assert int(done.stdout) == (3 if packed else runs + 2)
        found.append({path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()})
    assert [path.name for path in unfinished.iterdir()] == ["of-another-study"], "a collected run is finished"
    assert found[0] == found[1], "equal records give equal files"
    assert (target / "results.csv").read_bytes() == b"a,b\n"
    # Two studies may share a folder in the repository: neither log replaces the other.
    assert found[0]["test-openings.jsonl"] == b'{"runs": ["of another study"]}\n' + openings
    if packed:
        assert not (target / "runs").exists()
        with tarfile.open(target / "runs.tar.gz") as archive:
            members = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            assert {name: stream.read() for name, stream in members.items() if stream} == contents
    else:
        assert {name: (target / name).read_bytes() for name in contents} == contents


def test_the_list_of_this_repository_names_what_is_there_or_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "studies/runner", "--list"],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    order = yaml.safe_load((ROOT / "studies" / "order.yaml").read_text())["studies"]
    names = [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [name for name in names if name] == [each["name"] for each in order]
    table = (ROOT / "studies" / "README.md").read_text()
    for each in order:
        assert f"`{each['name']}`" in table
        ready = all((ROOT / path).exists() for path in each.get("needs", []))
        named = [part for command in each["commands"] for part in command["argv"] if part.startswith("studies/")]
        if not ready or not all((ROOT / part).exists() for part in named):
            assert "not ready: studies/" in done.stdout
