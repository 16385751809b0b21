"""User errors: one line, the documented exit code, and no files written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import PAIR_SPACE, TINY, TINY_SPACE, RunCommand, snapshot, tiny_recipe, write_space

SPEC = TINY.to_mapping()


def with_stage(**fields: Any) -> dict[str, Any]:
    return {**SPEC, "stages": [{**SPEC["stages"][0], **fields}]}


FILES: dict[str, Any] = {
    "unknown-field.yaml": {**SPEC, "chanels": 3},
    "zero-channels.yaml": with_stage(channels=0),
    "huge-stride.yaml": with_stage(stride=16),
    "odd-groups.yaml": {**SPEC, "groups": 3},
    "even-kernel.yaml": with_stage(kernel_sizes=[4, 4]),
    "no-stages.yaml": {**SPEC, "stages": []},
    "newer.yaml": {**SPEC, "schema_version": 2},
    "list.yaml": [1, 2],
    "empty.yaml": None,
    "good.yaml": SPEC,
    "bad-recipe.yaml": {"learning_rate": -1},
    "bad-space.yaml": {"stages": [3, 2]},
    "broken.yaml": "{spec: [",
    "broken.json": '{"stages": ',
    "twice.yaml": "name: a\nname: b\n",
    "danger.yaml": "!!python/object/apply:os.system [touch danger]",
    "binary.yaml": b"\xff\xfe\x00\x01",
    "corrupt.npz": b"PK\x03\x04 no archive",
}


def encoded(content: Any) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return raw if isinstance(raw, bytes) else yaml.safe_dump(content).encode()


WRITTEN = {name: encoded(content) for name, content in FILES.items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in WRITTEN.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


CHECK = [
    (["wrn-16-5"], "did you mean wrn-16-4?"),
    (["nonsense"], "available: reference"),
    ([""], "spec"),
    (["unknown-field.yaml"], "chanels"),
    (["zero-channels.yaml"], "stages[0].channels = 0: must be at least 1"),
    (["huge-stride.yaml"], "stages[0].stride = 16: would shrink"),
    (["odd-groups.yaml"], "groups"),
    (["even-kernel.yaml"], "odd kernel size"),
    (["no-stages.yaml"], "stages"),
    (["newer.yaml"], "schema_version"),
    (["list.yaml"], "must contain a mapping of fields, not a list"),
    (["empty.yaml"], "must contain a mapping of fields, not nothing"),
    (["broken.yaml"], "well-formed YAML"),
    (["broken.json"], "well-formed JSON"),
    (["twice.yaml"], "duplicate key"),
    (["danger.yaml"], "well-formed YAML"),
    (["binary.yaml"], "UTF-8"),
    (["missing.yaml"], "no such file"),
    (["folder"], "cannot be read"),
    (["good.yaml", "--max-params", "-5"], "--max-params = '-5'"),
    (["good.yaml", "--max-params", "0"], "--max-params"),
    (["good.yaml", "--max-macs", "1.5"], "--max-macs"),
    (["good.yaml", "--max-activations", "many"], "--max-activations"),
    (["good.yaml", "--max-params", "1e999"], "--max-params"),
    (["good.yaml", "--bogus"], "--bogus"),
    (["good.yaml", "--max-params", "1k", "--edit", "99"], "--edit = 99: needs --write"),
    (["good.yaml", "extra"], "extra"),
    (["good.yaml", "--max-params"], "--max-params"),
    ([], "SPEC"),
]
SHARED = [
    (["--epochs", "0"], "--epochs"),
    (["--epochs", "2.5"], "--epochs"),
    (["--epochs", "1e9"], "epochs"),
    (["--seed", "-1"], "--seed"),
    (["--seed", "4294967296"], "--seed"),
    (["--seed", "x"], "--seed"),
    (["--device", "tpu"], "--device"),
    (["--device", "mps"], "--device"),
    (["--train-size", "0"], "--train-size"),
    (["--train-size", "9"], "--train-size"),
    (["--train-size", "100000"], "--train-size"),
    (["--validation-size", "x"], "--validation-size"),
    (["--validation-size", "9999"], "--validation-size"),
    (["--data", "digit"], "did you mean digits?"),
    (["--data", "imagenet"], "data"),
    (["--data", "arrays:missing.npz"], "no such file"),
    (["--data", "arrays:corrupt.npz"], "must be a .npz file"),
    (["--data", "folder:missing"], "data"),
    (["--recipe", "papers"], "did you mean paper?"),
    (["--recipe", "bad-recipe.yaml"], "learning_rate"),
    (["--recipe", "missing.yaml"], "no such file"),
]
SEARCH = [
    (["--sizing", "big"], "--sizing = 'big': must be 'fit', 'scale' or 'reject'"),
    (["--sampler", "cma"], "--sampler = 'cma': must be 'surrogate', 'tpe', 'gp', 'nsga2' or 'random'"),
    (["--pruner", "wilcoxon"], "--pruner = 'wilcoxon': must be 'asha', 'hyperband', 'median' or 'none'"),
    (["--timeout", "soon"], "--timeout = 'soon': must be a time above 0"),
    (["--timeout", "0s"], "--timeout"),
    (["--timeout", "-5m"], "--timeout"),
    (["--max-train-flops", "much"], "--max-train-flops = 'much': must be a number of PFLOP"),
    (["--max-train-flops", "0"], "--max-train-flops"),
    (["--max-train-flops", "-0.5"], "--max-train-flops"),
    (["--workers", "0"], "--workers = '0': must be a whole number of at least 1\n"),
    (["--workers", "many"], "--workers"),
    (["--per-gpu", "0.5"], "--per-gpu"),
    (["--finalists", "-1"], "--finalists"),
    (["--final-seeds", "0"], "--final-seeds"),
    (["--final-recipe", "papers"], "did you mean paper?"),
    (["--final-epochs", "x"], "--final-epochs"),
    (["--enqueue", "wrn-16-5"], "did you mean wrn-16-4?"),
    (["--enqueue", "missing.yaml"], "no such file"),
    (["--space", "resnets"], "did you mean resnet?"),
    (["--trials", "-1"], "--trials = '-1': must be a whole number of at least 1\n"),
    (["--trials", "x"], "--trials"),
    (["--space", "bad-space.yaml"], "stages"),
    (["--space", "missing.yaml"], "no such file"),
    (["--space", "list.yaml"], "mapping of fields"),
    (["--storage", "nonsense"], "--storage"),
    (["--storage", "foo://bar"], "--storage"),
    (
        ["--max-params", "none"],
        "--max-params = 'none': must be a whole number of at least 1, such as 5000000, 5e6 or 5M",
    ),
    (["extra"], "extra"),
]
LONG = f"{'x' * 300}.html"
BAD_INPUT = [
    *((["check", *arguments], hint) for arguments, hint in CHECK),
    *((["summary", *arguments], hint) for arguments, hint in CHECK if not {*arguments} & {"--max-params", "good.yaml"}),
    *((["summary", "good.yaml", "--input-size", size], "--input-size") for size in ("0", "-8", "x", "4097", "1e12")),
    (["schema", "nonsense"], "must be spec, recipe, space or ablation"),
    (["specs", "extra"], "extra"),
    *((["train", "good.yaml", *arguments], hint) for arguments, hint in SHARED),
    *((["train", *arguments], hint) for arguments, hint in (CHECK[0], CHECK[3], CHECK[17], CHECK[-1])),
    *((["search", *arguments], hint) for arguments, hint in SHARED + SEARCH),
    (["leaderboard"], "the storage has no study yet"),
    (["leaderboard", "folder"], "study = 'folder': is a folder without a run, and no study; --out FOLDER reads"),
    (["leaderboard", "name", "--out", "nowhere"], "the storage has no study yet"),
    (["leaderboard", "--storage", "nonsense"], "--storage"),
    (["report", "-o", LONG], f"{LONG}: File name too long"),
    (["check", "good.yaml", "--max-params", "1k", "--write", f"{LONG}.yaml"], f"{LONG}.yaml: File name too long"),
    (["serch"], "Did you mean"),
    (["--bogus"], "--bogus"),
]


@pytest.mark.parametrize(("arguments", "hint"), BAD_INPUT, ids=[" ".join(arguments) for arguments, _ in BAD_INPUT])
def test_bad_input_gives_one_line_and_writes_no_files(
    folder: Path, tell: RunCommand, arguments: list[str], hint: str
) -> None:
    before = snapshot(folder)
    answer = tell(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1
    assert hint in answer.err
    assert snapshot(folder) == before
    assert {path.name for path in folder.iterdir()} == {*FILES, "folder"}


def test_infeasible_budget_exits_with_3_and_writes_nothing(folder: Path, tell: RunCommand) -> None:
    before = snapshot(folder)
    answer = tell("search", "--max-params", "100")
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert "no network of the space fits the budget" in answer.err
    assert snapshot(folder) == before
    assert not (folder / "runs").exists()


def test_enqueued_network_over_budget_exits_with_3_and_writes_nothing(folder: Path, tell: RunCommand) -> None:
    before = snapshot(folder)
    answer = tell("search", "--enqueue", "reference", "--max-params", "100k")
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    # 1,152 fewer than on colour images: two channels less for each of 64 kernels of 3 by 3.
    assert "reference: 4,661,194 params exceed the 100,000 allowed" in answer.err
    assert snapshot(folder) == before


@pytest.mark.parametrize("out", ["good.yaml", "good.yaml/runs"])
@pytest.mark.parametrize("verb", [["train", "good.yaml"], ["search"], ["leaderboard"]])
def test_file_in_place_of_run_folder_is_rejected(folder: Path, tell: RunCommand, verb: list[str], out: str) -> None:
    before = snapshot(folder)
    answer = tell(*verb, "--out", out)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    field = "--storage" if verb == ["leaderboard"] else f"--out = '{out}': must be a writable folder"
    assert answer.err.startswith(f"error: {field}")
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["leaderboard", "--out", "circle"], "--storage = "),
        (["report", "--out", "circle"], "--storage = "),
        (["figures", "circle"], "run folder = 'circle': no such folder"),
        (["train", "resnet20", "--out", "circle"], "--out = 'circle': must be a writable folder"),
        (["search", "--out", "circle"], "--out = 'circle': must be a writable folder"),
        (["search", "--out", "circle/runs"], "--out = 'circle/runs': must be a writable folder"),
        (["search", "--out", "nowhere"], "--out = 'nowhere': must be a writable folder"),
        (["leaderboard", "--out", "linked"], "--storage = "),
    ],
)
def test_symbolic_links_that_lead_nowhere_are_told_in_one_line(
    tmp_path: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch, command: list[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "studies.db").symlink_to("studies.db")
    before = {path.name for path in tmp_path.iterdir()}
    answer = tell(*command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"error: {line}")
    assert {path.name for path in tmp_path.iterdir()} == before


def small(*more: str) -> list[str]:
    return ["--train-size", "64", "--validation-size", "40", "--recipe", "recipe.yaml", *more]


# With so large a product of rate and decay, every step multiplies the weights by -9: epochs pass until they overflow.
SLOW = {"learning_rate": 10.0, "weight_decay": 1.0, "momentum": 0.0}


@pytest.mark.parametrize("settings", [{"learning_rate": 1e10}, {"learning_rate": 1e30}, SLOW])
def test_diverged_run_exits_with_1_and_one_line(folder: Path, tell: RunCommand, settings: dict[str, float]) -> None:
    tiny_recipe(epochs=40, **settings).save(folder / "recipe.yaml")
    for _ in range(2):  # the second answer comes from the record
        answer = tell("train", "good.yaml", *small())
        assert (answer.code, answer.out.count("cost: at most "), answer.err.count("\n")) == (1, 1, 1)
        assert (answer.out.count("memory of a training step: about "), answer.out.count("\n")) == (1, 2)
        assert "the loss was not finite in epoch" in answer.err
        assert ("in epoch 1 " in answer.err) is (settings is not SLOW)


def test_study_with_another_config_is_rejected(folder: Path, tell: RunCommand) -> None:
    tiny_recipe(epochs=1).save(folder / "recipe.yaml")
    write_space(folder / "space.yaml", TINY_SPACE)
    write_space(folder / "pair.yaml", PAIR_SPACE)
    search = ["search", "--study", "mine", "--trials", "1", "--max-params", "20k"]
    assert tell(*search, "--space", "space.yaml", *small()).code == 0
    answer = tell(*search, "--space", "pair.yaml", *small("--seed", "1"))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "made with seed 0, not 1; space.stages [1, 2], not [1, 1]; " in answer.err
    assert answer.err.endswith("; choose another study name, or none\n")
    other = tell("search", "--space", "paper", "--study", "mine", "--trials", "1", *small())
    assert re.search(r"(?:[^;]*; ){3}[^;]* and \d+ more; choose another study name, or none\n$", other.err), "one line"
    assert tell("leaderboard", "other").err.count("the storage has mine") == 1


def test_corrupt_study_file_is_reported(folder: Path, tell: RunCommand) -> None:
    (folder / "runs").mkdir()
    (folder / "runs" / "studies.db").write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 20)
    for verb in ("search", "leaderboard"):
        answer = tell(verb)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert "cannot be used" in answer.err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("search --study {}", "--study"),
        ("search --storage {}", "--storage"),
        ("search --engine ray --store {}", "--store"),
        ("ablate --of {}", "--of"),
        ("ablate study.yaml --data {}", "--data"),
        ("reproduce reference --data {}", "--data"),
    ],
)
def test_an_empty_value_is_not_the_default(folder: Path, tell: RunCommand, command: str, option: str) -> None:
    (folder / "study.yaml").write_text("{spec: resnet20, factors: {recipe.epochs: [1, 2]}}")
    before = snapshot(folder)
    answer = tell(*(word.replace("{}", "") for word in command.split()))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith(f"error: {option} = '': ")
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        "check {}",
        "train {}",
        "train resnet20 --recipe {}",
        "search --enqueue {}",
        "search --space {}",
        "search --recipe {}",
        "search --finalists 1 --final-recipe {}",
        "space {}",
    ],
)
def test_an_empty_name_is_neither_the_folder_nor_the_default(folder: Path, tell: RunCommand, command: str) -> None:
    before = snapshot(folder)
    answer = tell(*(word.replace("{}", "") for word in command.split()))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert re.search(r" = '': no such (network|recipe|space), and no such file; available: ", answer.err)
    assert snapshot(folder) == before
