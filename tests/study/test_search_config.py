"""Config of a search: parsing, storage with the study, and the command that reproduces it."""

from __future__ import annotations

import inspect
import json
import shlex
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from strategies import ENGINE_FIELDS, many_examples, some_fields
from support import TINY, TINY_SPACE, RunCommand, tiny_recipe
from typer.testing import CliRunner

import budgetnet as bn
from budgetnet.cli.fields import takes_options_of
from budgetnet.common.config import command, has_unnamed_documents
from budgetnet.common.errors import InputError, RecordError
from budgetnet.data import DataSet
from budgetnet.data.training_data import TrainingData
from budgetnet.model.deployed.weights import Precision
from budgetnet.model.zoo import get
from budgetnet.runs.named_recipes import named_recipe
from budgetnet.study.config import SearchConfig
from budgetnet.study.context import make_settings
from budgetnet.study.objectives import WAYS_WITH_COSTS
from budgetnet.study.settings import StudySettings
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.named import named_space

FIELDS = SearchConfig.model_fields
COUNT = st.integers(1, 10**7)
NAME = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12).filter(
    lambda text: not text.startswith("-")
)
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    **ENGINE_FIELDS,
    **dict.fromkeys(("max_params", "max_macs", "max_activations", "epochs", "final_epochs"), COUNT),
    **dict.fromkeys(("max_weights", "max_peak_memory"), COUNT),
    "weight_precision": st.sampled_from(get_args(Precision)),
    "max_latency_ms": st.floats(1e-3, 1e6).map(lambda milliseconds: round(milliseconds, 4)),
    "device_file": NAME,
    **dict.fromkeys(("trials", "final_seeds", "train_size", "validation_size"), COUNT),
    **dict.fromkeys(("data", "space", "recipe", "final_recipe", "study"), NAME),
    "timeout": st.floats(1e-3, 1e7).map(lambda seconds: round(seconds, 3)),
    "max_train_flops": st.floats(0, 1e12, exclude_min=True),
    "objectives": st.just(("accuracy",))
    | st.lists(st.sampled_from(("params", "macs", "activations", "weights", "peak_memory")), unique=True).map(
        lambda costs: ["accuracy", *costs]
    ),
    "sizing": st.sampled_from(("fit", "scale", "reject")),
    "sampler": st.sampled_from(("surrogate", "tpe", "gp", "nsga2", "random")),
    "pruner": st.sampled_from(("asha", "hyperband", "median", "none")),
    # A # begins the number of a candidate of another study, which would be looked up.
    "enqueue": st.lists(NAME.filter(lambda text: "#" not in text and bool(text.strip())), max_size=3),
    "finalists": st.integers(0, 20),
    "storage": st.just("sqlite:///a folder/studies.db"),
    "seed": st.integers(0, 2**32 - 1),
    "out": NAME.map(Path),
    "device": st.sampled_from(("auto", "cuda", "mps", "cpu")),
    "threads": COUNT | st.just("auto"),
    "track": st.lists(st.just("tensorboard") | st.just("mlflow:some where"), max_size=2),
}


def read_by_the_command_line(line: str) -> SearchConfig:
    """The config that a command with the options of a search is called with."""
    found: list[SearchConfig] = []
    app = typer.Typer()

    @app.command()
    @takes_options_of(SearchConfig)
    def search(config: SearchConfig) -> None:
        found.append(config)

    program, verb, *arguments = shlex.split(line)
    assert (program, verb) == ("budgetnet", "search")
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    return found[0]


def with_ways(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config, with a sampler and a pruner that know of its objectives."""
    if len(given.get("objectives", ())) > 1:
        known = {"sampler": {"surrogate": "tpe"}, "pruner": dict.fromkeys(("asha", "hyperband", "median"), "none")}
        return {name: known[name].get(value, value) if name in known else value for name, value in given.items()}
    return given


@many_examples
@given(some_fields(GIVEN).map(with_ways))
def test_command_round_trips_the_config(given: dict[str, Any]) -> None:
    config = SearchConfig(**given)
    assert read_by_the_command_line(command(config)) == config
    assert SearchConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


def test_cases_cover_all_fields() -> None:
    assert set(GIVEN) == set(FIELDS)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "budgetnet search"),
        ({"max_params": 5e6, "trials": 6, "out": "runs"}, "budgetnet search"),
        ({"max_params": None}, "budgetnet search --max-params unlimited"),
        ({"max_params": "300k", "timeout": "10m"}, "budgetnet search --max-params 300k --timeout 600s"),
        ({"max_params": 1_234_567, "timeout": 0.25}, "budgetnet search --max-params 1234567 --timeout 0.25s"),
        ({"max_train_flops": "0.50"}, "budgetnet search --max-train-flops 0.5"),
        (
            {"max_latency_ms": 2.5, "device_file": "pi.yaml"},
            "budgetnet search --max-latency 2.5ms --device-file pi.yaml",
        ),
        ({"max_train_flops": 3, "trials": 9}, "budgetnet search --trials 9 --max-train-flops 3"),
        (
            {"enqueue": ["zoo", "my net.yaml"], "seed": 3},
            "budgetnet search --enqueue zoo --enqueue 'my net.yaml' --seed 3",
        ),
        (
            {"recipe": named_recipe("modern"), "space": named_space("paper")},
            "budgetnet search --space paper --recipe modern",
        ),
        ({"enqueue": get("resnet20")}, "budgetnet search --enqueue resnet20"),
        ({"objectives": "accuracy"}, "budgetnet search"),
        (
            {"objectives": "macs, accuracy"},
            "budgetnet search --objectives accuracy,macs",
        ),
        (
            {"objectives": ["accuracy", "params", "activations"], "sampler": "nsga2", "sizing": "fit"},
            "budgetnet search --objectives accuracy,params,activations --sizing fit --sampler nsga2",
        ),
        (
            {"recipe": tiny_recipe(), "space": SearchSpace(**TINY_SPACE), "enqueue": [TINY]},
            "budgetnet search --space SPACE.yaml --enqueue SPEC.yaml --recipe RECIPE.yaml",
        ),
    ],
)
def test_command_omits_defaults(given: dict[str, Any], line: str) -> None:
    assert command(SearchConfig(**given)) == line


def test_unnamed_documents_are_accepted() -> None:
    assert not has_unnamed_documents(SearchConfig(recipe=named_recipe("modern"), enqueue="zoo"))
    assert has_unnamed_documents(SearchConfig(space=TINY_SPACE))
    assert has_unnamed_documents(SearchConfig(enqueue=["zoo", TINY]))


def test_every_field_is_an_option_a_keyword_and_described(tell: RunCommand) -> None:
    keywords = inspect.signature(bn.search).parameters
    assert keywords["callbacks"].kind is keywords["trials"].kind is inspect.Parameter.KEYWORD_ONLY
    shown = " ".join(tell("search", "--help").out.replace("│", " ").split())
    for name, field in FIELDS.items():
        assert field.description
        assert f"--{name.removesuffix('_ms').replace('_', '-')} " in shown
        assert " ".join(field.description.split()[:3]) in shown
        assert f"{name}: {field.description}" in (bn.search.__doc__ or "")
        assert name == "data" or keywords[name].default == field.default


def test_fields_parse_text() -> None:
    config = SearchConfig(max_params="1.5k", timeout="1.5h", trials="20", enqueue="zoo", threads="2", seed="7")
    assert (config.max_params, config.timeout, config.trials) == (1_500, 5_400.0, 20)
    assert (config.enqueue, config.threads, config.seed) == (("zoo",), 2, 7)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"train_size": 0}, "train_size = 0: must be a whole number of at least 1"),
        ({"timeout": "soon"}, "timeout = 'soon': must be a time above 0"),
        *(
            (
                {"max_train_flops": value},
                f"max_train_flops = {value!r}: must be a number of PFLOP (1e15 operations) above 0",
            )
            for value in ("much", "0", -0.5, "5M", "nan", "inf", True)
        ),
        ({"max_latency_ms": "2ms"}, "max_latency_ms = 2.0: needs the file of a device, device_file"),
        ({"device_file": "pi.yaml"}, "device_file = 'pi.yaml': needs a limit of the latency, max_latency_ms"),
        ({"max_latency_ms": "fast", "device_file": "pi.yaml"}, "max_latency_ms = 'fast': must be a time above 0"),
        ({"finalists": -1}, "finalists = -1: must be a whole number of at least 0"),
        ({"threads": "many"}, "threads = 'many': must be a whole number of at least 1, or auto"),
        ({"seed": 2**32}, "seed = 4294967296: must be a whole number from 0 to 4,294,967,295"),
        ({"enqueue": "zoos"}, "enqueue = 'zoos': no such network"),
        ({"enqueue": [3]}, "enqueue = [3]: must be a name, a file or a specification"),
        ({"recipe": "papr"}, "recipe = 'papr': no such recipe, and no such file; did you mean paper?"),
        ({"epochs": 10**9}, "epochs = 1000000000: must be at most 100000"),
        ({"final_epochs": 10**9}, "final_epochs = 1000000000: must be at most 100000"),
        ({"final_recipe": "as-run"}, "final_recipe = 'as-run': cannot rank networks"),
        ({"sizing": "fit", "max_params": None}, "sizing = 'fit': needs a limit to fit widths to"),
        ({"device": "tpu"}, "device = 'tpu': must be 'auto', 'cuda', 'mps' or 'cpu'"),
        ({"objectives": "macs"}, "objectives = 'macs': must contain accuracy: add it, such as accuracy,macs"),
        ({"objectives": ()}, "objectives = (): must contain accuracy"),
        ({"objectives": "accuracy,macs,macs"}, "objectives = 'accuracy,macs,macs': must name each objective once"),
        (
            {"objectives": ["accuracy", "flops"]},
            "objectives = ['accuracy', 'flops']: must be of accuracy, params, macs, activations, weights, "
            "peak_memory, latency, which flops is not",
        ),
        (
            {"objectives": "accuracy,macs,latency"},
            "objectives = 'accuracy,macs,latency': latency needs max_latency_ms and device_file",
        ),
        ({"objectives": 3}, "objectives = 3: must be a list of names"),
        (
            {"objectives": "accuracy,macs", "sampler": "surrogate"},
            "sampler = 'surrogate': models accuracy alone: with several objectives choose tpe, nsga2, gp or random",
        ),
        (
            {"objectives": "accuracy,macs", "pruner": "asha"},
            "pruner = 'asha': compares accuracy alone and would stop candidates of low cost",
        ),
        ({"track": "wandb"}, "track = 'wandb': must be tensorboard"),
        ({"trails": 3}, "trails = 3: unknown field"),
    ],
)
def test_invalid_search_config_gives_one_line(given: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        bn.search(out=tmp_path / "runs", **given)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value), "the library knows fields, not options"
    assert not (tmp_path / "runs").exists()


def test_steps_are_not_measured_for_the_machines_of_a_cluster(tell: RunCommand) -> None:
    for words in ("search", "ablate study.yaml", "reproduce reference"):
        answer = tell(*words.split(), "--engine", "ray", "--threads", "auto")
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert answer.err.startswith("error: --threads = 'auto': measures steps on this machine")


def test_ways_with_several_objectives_are_defaults_only() -> None:
    changed = SearchConfig().replace(objectives="accuracy,macs", trials=9)
    assert changed == SearchConfig(objectives="accuracy,macs", trials=9)
    assert changed.costs == ("macs",)
    assert {name: getattr(changed, name) for name in WAYS_WITH_COSTS} == WAYS_WITH_COSTS
    assert changed.replace(objectives="accuracy") == SearchConfig(trials=9)
    assert SearchConfig(sampler="random").replace(objectives="accuracy,macs").sampler == "random"
    assert SearchConfig(objectives="accuracy,macs", sampler="tpe").replace(objectives="accuracy").sampler == "tpe"
    with pytest.raises(InputError, match=r"^sampler = 'surrogate': "):
        SearchConfig(sampler="surrogate").replace(objectives="accuracy,macs")


def test_a_sampler_given_on_the_command_line_is_not_replaced(tell: RunCommand, tmp_path: Path) -> None:
    several = ("search", "--objectives", "accuracy,macs", "--out", str(tmp_path))
    answer = tell(*several, "--sampler", "surrogate")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert answer.err.startswith("error: --sampler = 'surrogate': models accuracy alone")
    # The defaults that the help text shows count as not given.
    assert read_by_the_command_line("budgetnet search --objectives macs,accuracy") == SearchConfig(
        objectives=("accuracy", "macs")
    )


def test_passwords_are_neither_stored_nor_shown() -> None:
    config = SearchConfig(storage="postgresql://me:secret@host/db", track=["mlflow:http://me:secret@host"])
    assert config.storage is not None
    assert "secret" in config.storage
    for shown in (command(config), json.dumps(config.to_mapping())):
        assert "secret" not in shown
        assert shown.count("me:***@host") == 2


def tiny(out: Path, **fields: Any) -> SearchConfig:
    how: dict[str, Any] = {"recipe": tiny_recipe(epochs=1), "space": TINY_SPACE, "sizing": "reject", "pruner": "none"}
    how |= {"train_size": 64, "validation_size": 40}
    return SearchConfig(**{"max_params": 20_000, "trials": 1, "out": out, "device": "cpu", **how, **fields})


def stored(study: bn.Study) -> dict[str, Any]:
    """The attributes of a study as Optuna reads them."""
    storage = f"sqlite:///{study.out.resolve() / 'studies.db'}"
    return optuna.load_study(study_name=study.name, storage=storage).user_attrs


def test_the_config_is_stored_whole_and_a_resumed_search_adds_to_it(tmp_path: Path) -> None:
    first = tiny(tmp_path, enqueue=[TINY], study="mine", finalists=1, final_seeds=1, final_recipe=tiny_recipe(epochs=1))
    study = bn.search(first)
    assert json.loads(stored(study)["budgetnet:settings"])["config"] == first.to_mapping()
    assert study.settings.config == first
    again = bn.search(tiny(tmp_path, study="mine", trials=2, timeout="1h", workers=1))
    assert again.count_outcomes()["trained"] == 2
    # What the first search asked for and the second did not is part of how the study came about.
    assert again.settings.config == first.replace(trials=2, workers=1), "a timeout is that of one search"
    assert bn.search(first).settings.config == first.replace(trials=2), "with no fewer trials than there are"


@pytest.mark.parametrize(
    ("earlier", "later", "kept"), [(0.5, 2, 2.0), (0.5, 0.25, 0.5), (0.5, None, None), (None, 0.5, None)]
)
def test_a_resumed_search_keeps_the_larger_limit_on_operations(
    earlier: float | None, later: float | None, kept: float | None
) -> None:
    resumed = SearchConfig(max_train_flops=later).resuming(SearchConfig(max_train_flops=earlier))
    assert resumed.max_train_flops == kept


def test_a_search_ends_in_time(digits: DataSet, tmp_path: Path) -> None:
    study = bn.search(tiny(tmp_path), data=digits, timeout="0.001s")
    assert study.count_outcomes()["trained"] == 0


# As the version before configs stored a study.
BEFORE = {
    "schema_version": 1,
    "space": SearchSpace(**TINY_SPACE).to_mapping(),
    "sizing": "reject",
    "sampler": "surrogate",
    "pruner": "none",
    "budget": {"max_params": 20_000, "max_macs": None, "max_activations": None},
    "recipe": tiny_recipe(epochs=1).to_mapping(),
    "seed": 0,
    "device": "cpu",
    "precision": "float32",
}


def test_study_of_earlier_version_is_rejected(tell: RunCommand, tmp_path: Path) -> None:
    bn.search(tiny(tmp_path, study="mine"))
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.load_study(study_name="mine", storage=url).set_user_attr("budgetnet:settings", json.dumps(BEFORE))
    line = "study = 'mine': was made by an earlier version of budgetnet"
    with pytest.raises(RecordError, match=line):
        bn.search(tiny(tmp_path, study="mine"))
    answer = tell("leaderboard", "mine", "--out", str(tmp_path))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert line in answer.err
    answer = tell("search", "--study", "mine", "--train-size", "64", "--out", str(tmp_path))
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"--{line}" in answer.err, "the command line names the option"


def test_digest_changes_with_each_compared_field(digits: DataSet) -> None:
    config = SearchConfig()
    data = TrainingData.prepare(digits, config.candidate_recipe, device=torch.device("cpu"))

    def asked(**changes: Any) -> StudySettings:
        return make_settings(data, config.replace(**changes))

    # As the README has had it since before configs; its machine computes in bfloat16.
    assert asked().model_copy(update={"precision": "bfloat16"}).default_name == "digits-c0709298"
    other: dict[str, Any] = {
        "max_params": "1M",
        "max_macs": "1G",
        "max_activations": "1M",
        "max_weights": "1M",
        "max_peak_memory": "1M",
        "space": "paper",
        "objectives": "accuracy,macs",
        "sizing": "scale",
        "sampler": "gp",
        "pruner": "none",
        "recipe": "paper",
        "epochs": 3,
        "seed": 1,
    }
    shown = {"max_params": 10**6, "max_macs": 10**9, "sampler": "gp", "pruner": "none", "epochs": 3, "seed": 1}
    same: dict[str, Any] = {
        "trials": 7,
        "timeout": "1h",
        "max_train_flops": 0.5,
        "enqueue": "zoo",
        "finalists": 1,
        "final_seeds": 1,
        "final_recipe": "paper",
        "final_epochs": 2,
        "study": "mine",
        "storage": "sqlite:///x.db",
        "out": "there",
        "threads": 1,
        "engine": "ray",
        "workers": 2,
        "per_gpu": 2,
        "track": "tensorboard",
    }
    weighed = asked(max_weights="1M"), asked(max_weights="1M", weight_precision="int8")
    assert weighed[0].digest != weighed[1].digest
    assert weighed[0].differences(weighed[1]) == ["weight_precision float32, not int8"]
    # The rest is part of the question by what it comes to: the images, their split and the device.
    resolved = {"store", "data", "train_size", "validation_size", "device", "device_file"}
    assert {*other, *same, *resolved, "weight_precision", "max_latency_ms"} == set(FIELDS)
    for name, value in other.items():
        assert asked(**{name: value}).digest != asked().digest, name
        differing = asked().differences(asked(**{name: value}))
        named = {"epochs": {"recipe"}, "objectives": {"objectives", *WAYS_WITH_COSTS}}.get(name, {name})
        assert {each.split()[0].partition(".")[0] for each in differing} == named
        assert name not in shown or differing[0].endswith(f", not {shown[name]}")
    for name, value in same.items():
        assert asked(**{name: value}).digest == asked().digest, name
    assert asked(engine="ray", store="s3://bucket/runs").digest == asked().digest
