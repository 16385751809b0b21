"""What determines a study: the config of its search, and what that comes to on the data and the device."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from budgetnet.common.documents import Document
from budgetnet.model.budget import Budget
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import TRAINER_VERSION, DataRecord
from budgetnet.study.config import SearchConfig
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.fitting import FITTING

_RESOLVED = frozenset({"space", "recipe", "epochs", "data", "train_size", "validation_size", "device"})
"""Fields of the config that are compared by what they come to, not by how they are written."""
_IN_DIGEST = frozenset({"max_params", "max_macs", "max_activations", "sizing", "sampler", "pruner", "seed"})
"""Fields of the config that are part of the digest at their defaults, too."""


class StudySettings(Document):
    """The question that a study asks; candidates of one study are comparable because it never changes."""

    schema_version: Literal[2] = 2
    """Version of this format."""
    config: SearchConfig
    """What was asked for: every option of the search."""
    space: SearchSpace
    """Space that candidates are sampled from."""
    recipe: Recipe
    """Recipe that candidates are trained with."""
    data: DataRecord
    """Training and validation images."""
    device: str
    """Kind of device to train on: candidates trained on different kinds are not ranked together."""
    precision: Literal["float32", "bfloat16"]
    """Arithmetic of convolutions and matrix products that the recipe's setting comes to on this device."""
    fitting: int = FITTING
    """Version of how widths are fitted to a budget."""
    trainer: int = TRAINER_VERSION
    """Version of the trainer's arithmetic."""

    @property
    def budget(self) -> Budget:
        """What a candidate may cost."""
        return self.config.budget

    @property
    def digest(self) -> str:
        """Identity of the question: a hexadecimal SHA-256; words for people do not count."""
        config = self.config
        content: dict[str, Any] = {
            "space": self.space.model_dump(mode="json", exclude={"name"}),
            "sizing": [config.sizing, self.fitting],
            "sampler": config.sampler,
            "pruner": config.pruner,
            "budget": self.budget.to_mapping(),
            "recipe": self.recipe.digest,
            "data": self.data.key,
            "seed": config.seed,
            "device": self.device,
            "precision": self.precision,
            "trainer": self.trainer,
        }
        # Others count where they are not at their defaults, so that a new option changes no digest.
        others = set(_compared_fields()) - _IN_DIGEST
        content |= config.model_dump(mode="json", include=others, exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def default_name(self) -> str:
        """Name of the study where the user gives none: the same question finds its study again."""
        data = self.data.name.partition(":")[0]
        return f"{data}-{self.digest[:8]}"

    def differences(self, other: StudySettings) -> list[str]:
        """Names of the parts in which two questions differ."""
        own = ("space", "fitting", "device", "precision", "trainer")
        differing = [field for field in own if getattr(self, field) != getattr(other, field)]
        differing += [
            field for field in _compared_fields() if getattr(self.config, field) != getattr(other.config, field)
        ]
        if self.recipe.digest != other.recipe.digest:
            differing.append("recipe or epochs")
        if self.data.split_fingerprint != other.data.split_fingerprint:
            differing.append("data, or train or validation size")
        elif self.data.key != other.data.key:
            differing.append("data")
        return differing


def _compared_fields() -> list[str]:
    """Fields of the config that are part of the question as they are written."""
    return [
        field for field in SearchConfig.model_fields if field not in SearchConfig.MAY_CHANGE and field not in _RESOLVED
    ]
