"""Output of the commands: tables, JSON and exit codes."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support import TINY, TINY_SPACE, RunCommand, restarts, snapshot, strict_json, tiny_recipe, write_space

from budgetnet import __version__
from budgetnet.cli.tables import explain
from budgetnet.model.spec import ModelSpec
from budgetnet.model.zoo import names
from budgetnet.runs.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    TINY.save(tmp_path / "spec.yaml")
    tiny_recipe().save(tmp_path / "recipe.yaml")
    write_space(tmp_path / "space.yaml", TINY_SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = ["--recipe", "recipe.yaml", "--train-size", "64", "--validation-size", "40", "--device", "cpu"]
TRAIN = ["train", "spec.yaml", *SMALL]
SEARCH = ["search", "--space", "space.yaml", "--max-params", "20k", "--trials", "3", *SMALL]


def answered(tell: RunCommand, *arguments: str, code: int = 0) -> Any:
    answer = tell(*arguments, "--json")
    assert (answer.code, answer.err) == (code, "")
    return json.loads(answer.out)


def outside_the_storage(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files but those of SQLite, which moves its log into the file when the last connection is closed."""
    return {name: file for name, file in snapshot(folder).items() if "studies.db" not in name and ".lock" not in name}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["check", "reference", "--max-params", "5e6"], 0),
        (["check", "reference", "--max-params", "1M"], 3),
        (["check", "reference", "--max-macs", "10M", "--max-activations", "1k"], 3),
        (["check", "spec.yaml"], 0),
        (["summary", "reference"], 0),
        (["summary", "spec.yaml", "--input-size", "16"], 0),
        (["specs"], 0),
        (TRAIN, 0),
        (SEARCH, 0),
    ],
)
def test_json_and_tables_are_printed_to_standard_output(
    folder: Path, tell: RunCommand, arguments: list[str], code: int
) -> None:
    as_json, as_table = tell(*arguments, "--json"), tell(*arguments)
    assert strict_json(as_json.out)
    assert (as_json.code, as_table.code) == (code, code)
    assert (as_json.err, as_table.err) == ("", "")
    assert as_table.out.strip()
    assert "\x1b" not in as_table.out, "no colours where no terminal is"


def test_the_published_network_fits_five_million_with_its_published_count(tell: RunCommand) -> None:
    answer = answered(tell, "check", "reference", "--max-params", "5M")
    assert (answer["params"], answer["macs"], answer["fits"]) == (4_662_346, 793_446_912, True)
    (limit,) = answer["limits"]
    assert limit == {"limit": "params", "used": 4_662_346, "allowed": 5_000_000, "headroom": 337_654}


def test_network_over_budget_gets_edits_that_fit(tell: RunCommand, tmp_path: Path) -> None:
    answer = answered(tell, "check", "reference", "--max-params", "4M", code=3)
    assert answer["fits"] is False
    assert answer["edits"]
    for number, edit in enumerate(answer["edits"]):
        edited = tmp_path / f"{number}.json"
        edited.write_text(json.dumps(edit["spec"]))
        again = answered(tell, "check", str(edited), "--max-params", "4M")
        assert again["params"] == edit["params"] <= 4_000_000
    table = tell("check", "reference", "--max-params", "4M")
    assert all(edit["description"] in table.out for edit in answer["edits"])


def test_a_network_is_checked_as_it_would_be_trained_on_a_data_set(folder: Path, tell: RunCommand) -> None:
    ModelSpec.resnet(channels=[8], num_classes=3).save(folder / "colour.yaml")
    trained = answered(tell, "train", "colour.yaml", *SMALL)
    checked = answered(tell, "check", "colour.yaml", "--data", "digits", "--verify")
    assert (checked["input_shape"], checked["num_classes"]) == ([1, 8, 8], 10)
    assert (checked["params"], checked["macs"]) == (trained["params"], trained["macs"])
    assert checked["verified"]["torch_macs"] == trained["macs"]
    shown = tell("check", "colour.yaml", "--data", "digits", "--max-params", "2k")
    assert "counted for digits: images of 1x8x8, 10 classes" in shown.out


def test_a_space_is_described_for_a_data_set(folder: Path, tell: RunCommand) -> None:
    command = ["space", "space.yaml", "--max-params", "20k"]
    by_hand = answered(tell, *command, "--input-shape", "1,8,8", "--classes", "10")
    assert answered(tell, *command, "--data", "digits") == by_hand != answered(tell, *command)
    for option in (["--classes", "10"], ["--input-shape", "1,8,8"]):
        refused = tell(*command, "--data", "digits", *option)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"{option[0]} = '{option[1]}': must not be given with --data" in refused.err


def test_an_edit_is_written_as_a_spec_that_fits(folder: Path, tell: RunCommand) -> None:
    command = ["check", "reference", "--max-params", "4M"]
    edits = answered(tell, *command, code=3)["edits"]
    for options, edit in (([], edits[0]), (["--edit", "2"], edits[1])):
        answer = tell(*command, "--write", "smaller.yaml", *options)
        assert (answer.code, answer.err) == (3, "")
        assert f"wrote reference with {edit['description']} to smaller.yaml" in answer.out
        assert ModelSpec.load("smaller.yaml") == ModelSpec.from_mapping(edit["spec"])
        assert tell("check", "smaller.yaml", "--max-params", "4M").code == 0
    before = Path("smaller.yaml").read_bytes()
    refused = tell(*command, "--write", "smaller.yaml", "--edit", "99")
    assert (refused.code, refused.out) == (2, "")
    assert f"--edit = 99: must be from 1 to {len(edits)}" in refused.err
    assert tell("check", "reference", "--max-params", "1", "--write", "smaller.yaml").code == 3
    assert Path("smaller.yaml").read_bytes() == before, "no edit fits"


def test_a_folder_is_not_written_to_as_a_spec(folder: Path, tell: RunCommand) -> None:
    Path("results").mkdir()
    Path("file").touch()
    for path, rule in (("results", "must be a file, not a folder"), ("file/spec.yaml", "must be a writable folder")):
        refused = tell("check", "resnet20", "--write", path)
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.startswith("error: --write = '")
        assert rule in refused.err


def test_a_network_that_fits_is_written_for_the_data_it_was_checked_for(folder: Path, tell: RunCommand) -> None:
    Path("run").mkdir()
    Path("run/run.json").touch()
    refused = tell("check", "resnet20", "--write", "run/spec.yaml")
    assert (refused.code, refused.out) == (2, "")
    assert "--write = 'run/spec.yaml': must not be a file of a run" in refused.err
    assert [path.name for path in Path("run").iterdir()] == ["run.json"]
    answer = tell("check", "resnet20", "--max-params", "1M", "--data", "digits", "--write", "grey.json")
    assert (answer.code, answer.err) == (0, "")
    assert "wrote resnet20 to grey.json" in answer.out
    written = ModelSpec.load("grey.json")
    assert (written.name, written.input_shape, written.num_classes) == ("resnet20", (1, 8, 8), 10)


@pytest.mark.parametrize("spec", ["reference", "spec.yaml"])
def test_verifying_counts_the_built_network(folder: Path, tell: RunCommand, spec: str) -> None:
    answer = answered(tell, "check", spec, "--verify")
    counts = {"built_params": answer["params"], "thop_params": answer["params"], "torch_macs": answer["macs"]}
    assert answer["verified"] == counts
    assert "all agree" in tell("check", spec, "--verify").out


def test_the_named_networks_are_those_of_the_zoo(tell: RunCommand) -> None:
    assert [entry["name"] for entry in answered(tell, "specs")] == names()


@pytest.mark.parametrize("kind", ["spec", "recipe", "space"])
def test_a_schema_knows_the_fields_of_its_file(folder: Path, tell: RunCommand, kind: str) -> None:
    import yaml

    answer = tell("schema", kind)
    assert (answer.code, answer.err) == (0, "")
    assert set(strict_json(answer.out)["properties"]) == set(yaml.safe_load((folder / f"{kind}.yaml").read_text()))


def test_help_and_version(tell: RunCommand) -> None:
    assert tell("--version").out == f"budgetnet {__version__}\n"
    for arguments in (["--help"], ["-h"]):
        answer = tell(*arguments)
        assert (answer.code, answer.err) == (0, "")
        assert all(
            verb in answer.out
            for verb in ("check", "summary", "specs", "schema", "train", "evaluate", "ensemble", "search")
        )
    for verb in (
        *("check", "summary", "specs", "space", "schema"),
        *("train", "evaluate", "ensemble", "search", "leaderboard"),
    ):
        answer = tell(verb, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert "Usage" in answer.out


def test_help_has_no_types_and_ranges_in_words_of_python(tell: RunCommand) -> None:
    commands: list[list[str]] = [[]]
    for words in commands:
        shown = tell(*words, "--help").out
        assert not re.search(r"<[a-z ]+>|x[<>]=|<=x", shown), shown
        panel = shown.partition("Commands ─")[2]
        commands += [[*words, name] for name in re.findall(r"^│ ([a-z][a-z-]*)", panel, re.MULTILINE)]
    assert len(commands) > 30


def test_help_is_shown_without_a_command(tell: RunCommand) -> None:
    answer = tell()
    assert (answer.code, answer.err) == (2, "")
    assert "Usage" in answer.out


def test_train_prints_the_result_of_the_run_folder(folder: Path, tell: RunCommand) -> None:
    answer = answered(tell, *TRAIN, "--seed", "4")
    record = RunFolder(folder / answer["folder"]).load()
    assert (answer["seed"], record.identity.seed) == (4, 4)
    assert answer["validation_correct"] == record.result.validation_correct
    assert answer["validation_accuracy"] == record.result.validation_accuracy
    assert answer["interval"][0] <= answer["validation_accuracy"] <= answer["interval"][1]
    before = snapshot(folder)
    assert answered(tell, *TRAIN, "--seed", "4") == answer
    assert snapshot(folder) == before, "a finished run is answered from the record"
    assert "test set not used" in tell(*TRAIN, "--seed", "4").out


def test_names_and_paths_are_printed_as_they_are(folder: Path, tell: RunCommand) -> None:
    out = f"[bold]:smile:{'long' * 40}"
    assert f"run folder: {out}/basic-8x1-s0" in tell(*TRAIN, "--out", out).out
    assert tell(*SEARCH, "--study", "[red]:cat:").code == 0
    assert "[red]:cat:: at most 20,000 params" in tell("leaderboard", "[red]:cat:").out


def test_default_recipe_depends_on_data_set(folder: Path, tell: RunCommand) -> None:
    answer = answered(tell, "train", "spec.yaml", "--train-size", "64", "--validation-size", "40", "--epochs", "1")
    recipe = RunFolder(folder / answer["folder"]).load().identity.recipe
    assert (recipe.name, recipe.epochs, recipe.schedule) == ("digits", 1, restarts(1, cycle_factor=2))


def test_search_and_leaderboard_print_the_same_leaderboard(folder: Path, tell: RunCommand) -> None:
    # TPE begins with three different networks, so that none is a duplicate.
    command = (*SEARCH, "--sampler", "tpe")
    found = answered(tell, *command)
    before = outside_the_storage(folder)
    assert answered(tell, "leaderboard") == answered(tell, "leaderboard", found["study"]) == found
    assert tell("leaderboard").out == tell(*command).out
    assert outside_the_storage(folder) == before
    assert (found["trained"], found["comparable"], found["duplicate"], found["no_result"]) == (3, False, 0, 0)
    rows = found["rows"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    for row in rows:
        record = RunFolder(folder / "runs" / row["run"]).load()
        assert row["accuracy"] == record.result.validation_accuracy
        assert row["params"] == record.result.params <= 20_000
        assert row["compared_with"] == rows[0]["name"]
        assert (row["exceeds_noise"] is None) is (row is rows[0])
    table = tell("leaderboard").out
    assert "3 trained, 0 of them pruned at the end of a cycle; 0 rejected before training (over budget)" in table
    assert f"gap: difference to {rows[0]['name']} on the same images" in table
    assert "published" not in table


def test_exhausted_search_is_reported_with_its_leaderboard(
    folder: Path, tell: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetnet.study.driver.MAX_REJECTED", 5)
    write_space(folder / "space.yaml", {**TINY_SPACE, "channels": [8, 8], "stages": [1, 1], "block_kinds": ["basic"]})
    answer = tell(*SEARCH[: -len(SMALL)], "--trials", "9", *SMALL, "--json")
    assert answer.code == 0
    trained = strict_json(answer.out)["trained"]
    assert 1 <= trained < 9
    line = f"stopped at {trained} of 9 candidates: the last 5 proposals were nothing new that fits: 5 trained before; "
    assert answer.err == line + "the study counts each network once\n"


def test_search_that_reaches_the_limit_on_operations_says_so(folder: Path, tell: RunCommand) -> None:
    limited = [*SEARCH, "--sampler", "random", "--finalists", "2", "--final-seeds", "1", "--final-epochs", "1"]
    # 1 million MACs x 64 images x 6, of which networks of at most 20,000 parameters need some.
    answer = tell(*limited, "--max-train-flops", "1e-12")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    needed = re.fullmatch(r"error: --max-train-flops = 1e-12: the first candidate needs (\S+) PFLOP\n", answer.err)
    assert needed
    answer = tell(*limited, "--max-train-flops", needed[1], "--json")
    found = strict_json(answer.out)
    assert (answer.code, found["trained"], len(found["finals"])) == (0, 1, 1), "finalists are not counted"
    (row,) = [row for row in found["rows"] if row["rank"] == 1]
    used = f"{row['train_flops'] / 1e15:#.3g} of {needed[1]} PFLOP used"
    fewer = "1 of 2 finalists: no more candidates are fully trained\n"
    line = f"stopped at 1 of 3 candidates: {used}, and the next one needs up to \\S+; to resume, run the same command"
    assert re.fullmatch(f"{fewer}{line} with a larger --max-train-flops\n", answer.err)
    shown = " ".join(tell("leaderboard").out.split())
    assert f"--max-train-flops {needed[1]} " in shown
    assert "test: on the test set" in shown, "one seed has no mean"
    answer = tell(*limited, "--max-train-flops", "0.01")
    assert answer.code == 0
    assert re.search(r"^\S+ of 0.01 PFLOP used$", answer.err, flags=re.MULTILINE)
    assert "stopped" not in answer.err
    assert "of 2 finalists" not in answer.err
    assert "--max-train-flops 0.01 " in tell("leaderboard").out.replace("\n", " ")


OWN_MODULE = """
import torch.nn as nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))


def broken():
    raise RuntimeError("no weights\\nsecond line")


def number():
    return 3
"""


def test_a_module_of_ones_own_is_counted_by_torch(folder: Path, tell: RunCommand) -> None:
    (folder / "mine.py").write_text(OWN_MODULE)
    counted = answered(tell, "check", "--module", "mine:Net", "--max-params", "40k")
    # 27 x 4 weights and 4 biases, 3,600 x 10 weights and 10 biases.
    assert (counted["params"], counted["macs"]) == (112 + 36_010, 30 * 30 * 108 + 36_000)
    shown = tell("check", "--module", "mine:Net", "--max-params", "30k")
    assert shown.code == 3
    assert "Net: over budget" in shown.out and "a module, not a spec" in shown.out
    for command, complaint in (
        (["--module", "mine:Other"], "--module = 'mine:Other': cannot be built: AttributeError"),
        (["--module", "mine:broken"], "--module = 'mine:broken': cannot be built: RuntimeError: no weights"),
        (["--module", "mine:number"], "--module = 'mine:number': must give a torch module, not int"),
        (["--module", "mine"], "--module = 'mine': must be PACKAGE:CALLABLE"),
        (["--module", "absent_package:Net"], "cannot be built: ModuleNotFoundError"),
        (["--module", "mine:Net", "resnet20"], "SPEC = 'resnet20': must not be given with --module"),
        (["--module", "mine:Net", "--edit", "2"], "--edit = 2: must not be given with --module"),
        (["--module", "mine:Net", "--input-shape", "1,8,8"], "fails on an image of 1x8x8"),
        ([], "SPEC = None: must be given, or --module"),
    ):
        refused = tell("check", *command)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert complaint in refused.err


def test_a_spec_is_checked_for_other_images(tell: RunCommand) -> None:
    large = answered(tell, "check", "resnet18", "--input-shape", "3,64,64")
    assert large["input_shape"] == [3, 64, 64]
    assert large["params"] == 11_689_512
    assert large["macs"] < answered(tell, "check", "resnet18")["macs"]


def test_sentences_are_broken_between_words_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    sentence = "4 trained; 0 rejected before training (over budget), 0 duplicates"
    monkeypatch.setenv("COLUMNS", "50")
    for stream, lines in ((Terminal(), 2), (io.StringIO(), 1)):
        monkeypatch.setattr(sys, "stdout", stream)
        explain(sentence)
        written = stream.getvalue().splitlines()
        assert (len(written), " ".join(line.rstrip() for line in written)) == (lines, sentence)
