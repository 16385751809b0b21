"""Settings of a study: the config of its search, resolved for the data and the device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from budgetnet.common.documents import Document
from budgetnet.common.errors import short_repr
from budgetnet.model.budget import Budget
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import TRAINER_VERSION, DataRecord
from budgetnet.study.config import SearchConfig
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.fitting import FITTING

_RESOLVED = frozenset({"space", "recipe", "epochs", "data", "train_size", "validation_size", "device", "device_file"})
"""Fields of the config that are compared by their resolved values."""
_IN_DIGEST = frozenset({"max_params", "max_macs", "max_activations", "sizing", "sampler", "pruner", "seed"})
"""Fields of the config that are in the digest even at their defaults."""


class StudySettings(Document):
    """Settings of a study; they are fixed, so that its candidates are comparable."""

    schema_version: Literal[2] = 2
    """Version of this format."""
    config: SearchConfig
    """Options of the search."""
    space: SearchSpace
    """Space that candidates are sampled from."""
    recipe: Recipe
    """Recipe that candidates are trained with."""
    data: DataRecord
    """Training and validation images."""
    device: str
    """Type of device to train on; candidates trained on different types are not ranked together."""
    precision: Literal["float32", "bfloat16"]
    """Precision of convolutions and matrix products, resolved for the device."""
    fitting: int = FITTING
    """Version of the solver that fits widths to a budget."""
    deployed_on: str | None = None
    """Digest of the file of the device that networks are deployed on, where their latency is limited."""
    trainer: int = TRAINER_VERSION
    """Version of the trainer's arithmetic."""

    @property
    def budget(self) -> Budget:
        """Limits on the cost of a candidate."""
        return self.config.budget

    @property
    def digest(self) -> str:
        """Identity of the study: a hexadecimal SHA-256 of the settings without labels."""
        config = self.config
        content: dict[str, Any] = {
            "space": self.space.identity,
            "sizing": [config.sizing, self.fitting],
            "sampler": config.sampler,
            "pruner": config.pruner,
            "budget": {name: limit for name, limit in self.budget.to_mapping().items() if name != "device_file"},
            "recipe": self.recipe.digest,
            "data": self.data.key,
            "seed": config.seed,
            "device": self.device,
            "precision": self.precision,
            "trainer": self.trainer,
        }
        if self.deployed_on is not None:
            content["deployed_on"] = self.deployed_on
        # Others are included if not at their defaults, so that a new option changes no digest.
        others = set(_compared_fields()) - _IN_DIGEST
        content |= config.model_dump(mode="json", include=others, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def default_name(self) -> str:
        """Default name of the study, made from the digest, so that the same config finds the study again."""
        data = self.data.name.partition(":")[0]
        return f"{data}-{self.digest[:8]}"

    def differences(self, other: StudySettings) -> list[str]:
        """Return every setting that differs, with its value here and in the other: ``seed 0, not 1``."""
        here, there = self._compared(), other._compared()
        return [
            f"{path} {_as_text(here.get(path))}, not {_as_text(there.get(path))}"
            for path in dict.fromkeys([*here, *there])
            if here.get(path) != there.get(path)
        ]

    def _compared(self) -> dict[str, Any]:
        """Return every setting that must be equal, by its path."""
        config = self.config.model_dump(mode="json", include=set(_compared_fields()))
        own = self.model_dump(mode="json", include={"fitting", "device", "precision", "deployed_on", "trainer"})
        space = self.space.model_dump(mode="json", exclude={"name"})
        recipe = self.recipe.model_dump(mode="json", exclude={"name"})
        data = self.data.model_dump(mode="json", exclude={"name", "provenance", "class_names"})
        return dict(_leaves({**config, **own, "space": space, "recipe": recipe, "data": data}))


def _leaves(mapping: dict[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of nested mappings with its path."""
    for key, value in mapping.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{group}{key}.")
        else:
            yield f"{group}{key}", value


def _as_text(value: Any) -> str:
    return "none" if value is None else value[:20] if isinstance(value, str) else short_repr(value)


def _compared_fields() -> list[str]:
    """Return the fields of the config that are compared as written."""
    return [
        field for field in SearchConfig.model_fields if field not in SearchConfig.MAY_CHANGE and field not in _RESOLVED
    ]
