"""Files of ablation studies: reading, storage, digest, schema and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import matches

from budgetnet.common.errors import InputError
from budgetnet.common.files import read_mapping, write_yaml
from budgetnet.experiments.ablation import AblationStudy
from budgetnet.model import zoo
from budgetnet.runs.named_recipes import NAMED

STUDIES = Path(__file__).parents[2] / "studies"
CIFAR: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10}
ON_PAPER: dict[str, Any] = {"spec": "reference", "recipe": "paper"}


def test_a_study_is_read_with_the_files_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    zoo.get("resnet20").save(tmp_path / "parts" / "net.yaml")
    zoo.get("resnet56").save(tmp_path / "other.json")
    NAMED["modern"].save(tmp_path / "how")
    text = "spec: parts/net.yaml\nrecipe: how\nfactors:\n  spec: [other.json, reference]\n  recipe.nesterov: [off]\n"
    path = tmp_path / "study.yaml"
    path.write_text(text)
    study = AblationStudy.load(path)
    assert (study.spec, study.recipe) == (zoo.get("resnet20"), NAMED["modern"])
    names = [variant.name for variant in study.variants(**CIFAR)]
    assert names == ["base", "spec=resnet56", "spec=reference", "without nesterov"]
    # What is written again needs those files no more.
    for ending in ("yaml", "json"):
        copy = tmp_path / "elsewhere" / f"copy.{ending}"
        study.save(copy)
        assert AblationStudy.load(copy) == study
        assert AblationStudy.load(copy).digest == study.digest


def test_json_file_has_on_and_off_as_strings(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({**ON_PAPER, "factors": {"recipe.early_stopping": ["on", "off"]}, "fit": "both"}))
    assert [variant.settings for variant in AblationStudy.load(path).variants(**CIFAR)] == [
        {},
        {"recipe.early_stopping": False},
    ]


FACTORS: dict[str, Any] = {"recipe.early_stopping": ["off"], "spec.kernel_sizes": [3]}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other", "data": "digits", "train_size": "5k", "validation_size": 100}, True),
        ({"factors": {"spec.kernel_sizes": [[3, 3]], "recipe.early_stopping": [None]}}, True),
        ({"spec": zoo.get("reference").replace().to_mapping(), "seeds": [2, 1, 0]}, True),
        ({"changes": {"recipe.epochs": 150}}, True),
        ({"design": "leave-one-out"}, True),
        ({"changes": {"recipe.epochs": 149}}, False),
        ({"factors": {**FACTORS, "spec.kernel_sizes": [5]}}, False),
        ({"seeds": 2}, False),
        ({"fit": True}, False),
        ({"judged_on": "test"}, False),
        ({"budget": {"max_params": "5M"}}, False),
        ({"spec": "ladder-large-kernel"}, False),
    ],
)
def test_digest_depends_on_variants_and_comparisons(changes: dict[str, Any], same: bool) -> None:
    study = AblationStudy.from_mapping({**ON_PAPER, "factors": FACTORS})
    assert (AblationStudy.from_mapping({**ON_PAPER, "factors": FACTORS, **changes}).digest == study.digest) is same


def test_schema_accepts_written_and_stored_studies() -> None:
    schema: dict[str, Any] = json.loads(json.dumps(AblationStudy.model_json_schema()))
    path = STUDIES / "kernel-size" / "study.yaml"
    listed = {**ON_PAPER, "factors": ["recipe.early_stopping"], "fit": True, "seeds": [3, 4]}
    for mapping in (read_mapping(path), AblationStudy.load(path).to_mapping(), listed):
        assert matches(schema, mapping, schema)
        for wrong in ({"design": "one"}, {"fit": "all"}, {"seeds": "x"}, {"spec": 3}, {"factors": 3}, {"extra": 1}):
            assert not matches(schema, {**mapping, **wrong}, schema)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"extra": 1}, "extra = 1: unknown field"),
        ({"schema_version": 2}, "schema_version = 2: must be 1"),
        ({"spec": "refrence"}, "spec = 'refrence': no such network, and no such file; did you mean reference?"),
        ({"spec": {"stages": [{"channels": 0}]}}, "spec.stages[0].channels = 0: must be at least 1"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs = 0: must be at least 1"),
        ({"factors": {}}, "factors = {}: must be a mapping of paths to lists of levels, or a list of paths"),
        ({"factors": []}, "factors = []: must be a mapping of paths to lists of levels, or a list of paths"),
        ({"factors": 3}, "factors = 3: must be a mapping"),
        ({"factors": {"recipe.momentum": 0.8}}, "factors.recipe.momentum = 0.8: must be a list of levels"),
        ({"factors": {"recipe.momentum": []}}, "factors.recipe.momentum = []: must be a list of levels"),
        ({"factors": {"spec.groups": [2, "off", False]}}, "factors.spec.groups = [2, 'off', False]: must not have a"),
        (
            {"factors": {"recipe.scheduel": [1]}},
            "factors.recipe.scheduel = 1: unknown field; did you mean recipe.sched",
        ),
        ({"factors": {"spec": ["refrence"]}}, "factors.spec = 'refrence': no such network, and no such file; did you"),
        ({"factors": {3: [1]}}, "factors.3 = 1: unknown field"),
        ({"factors": ["recipe.momentum", "recipe.momentum"]}, "factors = ['recipe.momentum', 'recipe.momentum']: must"),
        ({"factors": {"recipe.momentum": [2]}}, "recipe.momentum = 2: must be less than 1 (in the variant momentum=2)"),
        ({"factors": {"recipe.momentum": [0.9]}}, "factors.recipe.momentum = [0.9]: changes nothing in the base"),
        (
            {"factors": ["recipe.nesterov"]},
            "factors.recipe.nesterov = [False]: changes nothing in the base",
        ),
        ({"changes": {"recipe.epohs": 3}}, "changes.recipe.epohs = 3: unknown field; did you mean recipe.epochs?"),
        ({"changes": {"recipe.epochs": 0}}, "recipe.epochs = 0: must be at least 1"),
        ({"changes": [1]}, "changes = [1]: must be a mapping of paths to values"),
        ({"seeds": 0}, "seeds = 0: must be from 1 to 1,000 seeds, or a list of them"),
        ({"seeds": []}, "seeds = []: must have at least 1 entries"),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: must not have a seed twice"),
        ({"seeds": [-1]}, "seeds[0] = -1: must be at least 0"),
        ({"seeds": True}, "seeds = True: must be a whole number"),
        ({"design": "all"}, "design = 'all': must be 'one-at-a-time', 'leave-one-out', 'alone-and-leave-one-out' or"),
        ({"fit": 1}, "fit = 1: must be true, false or both"),
        ({"judged_on": "train"}, "judged_on = 'train': must be 'validation' or 'test'"),
        ({"budget": {"max_params": -1}}, "budget.max_params = -1: must be a whole number"),
        ({"train_size": "some"}, "train_size = 'some': must be a whole number"),
        ({"design": "full-factorial"}, "factors.recipe.early_stopping = [False]: must have two levels or more"),
        (
            {"design": "full-factorial", "factors": {"recipe.momentum": [0.1, 0.2], "recipe.nesterov": [True]}},
            "factors.recipe.nesterov = [True]: must have two levels or more in a full factorial",
        ),
        (
            {"design": "full-factorial", "factors": {"recipe.momentum": [0.9, 0], "recipe.nesterov": ["on", "off"]}},
            "recipe.nesterov = True: needs a momentum above 0 (in the variant momentum=0, nesterov=on)",
        ),
        (
            {"factors": {"recipe.split_seed": [1]}},
            "recipe.split_seed = 1: would evaluate the variant split_seed=1 on other images than the base: set",
        ),
        (
            {"factors": {"recipe": [{"validation_fraction": 0.1}]}},
            "recipe.validation_fraction = 0.1: would evaluate the variant recipe=recipe-",
        ),
        (
            {"factors": {"spec": [{"stages": [{"channels": 8}]}, {"stages": [{"channels": 8, "stride": 2}]}]}},
            "factors = 'spec=basic-8x1': is the name of two variants: give their levels names",
        ),
        (
            {"design": "full-factorial", "factors": {f"spec.stages[{i}].blocks": [1, 2, 3, 4] for i in range(5)}},
            "factors = 1024: must give at most 1,000 variants",
        ),
        ({"factors": {"recipe.batch_size": list(range(2, 1002))}}, "factors = 1001: must give at most"),
        ({"factors": {"recipe.batch_size": list(range(2, 502))}, "fit": "both"}, "factors = 1002: must give at most"),
    ],
)
def test_invalid_study_gives_one_line(fields: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    mapping = {**ON_PAPER, "factors": FACTORS, **fields}
    with pytest.raises(InputError) as caught:
        AblationStudy.from_mapping(mapping)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)
    if not isinstance(mapping["factors"], dict) or 3 not in mapping["factors"]:
        path = tmp_path / "study.yaml"
        write_yaml(path, mapping)
        with pytest.raises(InputError) as caught:
            AblationStudy.load(path)
        assert str(caught.value).startswith(f"{path}: {complaint}")


def test_error_names_missing_or_invalid_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    write_yaml(path, {**ON_PAPER, "spec": "net.yaml", "factors": FACTORS})
    with pytest.raises(InputError) as caught:
        AblationStudy.load(path)
    # By its parts: in words a long path is shortened.
    found = caught.value.field, caught.value.value, caught.value.rule
    assert found == (f"{path}: spec", str(tmp_path / "net.yaml"), "no such file")
    (tmp_path / "net.yaml").write_text("stages: [{channels: 0}]")
    with pytest.raises(InputError) as caught:
        AblationStudy.load(path)
    assert str(caught.value) == f"{path}: {tmp_path / 'net.yaml'}: stages[0].channels = 0: must be at least 1"
    with pytest.raises(InputError, match=r"^ablation study = .*: no such file$"):
        AblationStudy.load(tmp_path / "missing.yaml")
