"""What determines a study: the question that a search asks."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from budgetnet.common.documents import Document
from budgetnet.model.budget import Budget
from budgetnet.runs.recipe import Recipe
from budgetnet.runs.records import TRAINER, DataRecord
from budgetnet.study.space import SearchSpace, Sizing
from budgetnet.study.space.fitting import FITTING

SamplerName = Literal["tpe", "gp", "nsga2", "random"]
PrunerName = Literal["asha", "hyperband", "median", "none"]


class StudySettings(Document):
    """The question that a study asks; candidates of one study are comparable because it never changes."""

    schema_version: Literal[1] = 1
    """Version of this format."""
    space: SearchSpace = SearchSpace()
    """What may be proposed."""
    sizing: Sizing = "fit"
    """How a draw meets the budget."""
    fitting: int = FITTING
    """Version of how widths are fitted to a budget."""
    sampler: SamplerName = "tpe"
    """What draws candidates."""
    pruner: PrunerName = "asha"
    """What ends candidates at restarts."""
    budget: Budget
    """What a candidate may cost."""
    recipe: Recipe
    """How candidates are trained."""
    data: DataRecord
    """What they are trained on and judged by."""
    seed: int
    """Seed of proposals and of every candidate's run."""
    device: str
    """Kind of device that trains: candidates trained on different kinds are not ranked together."""
    precision: Literal["float32", "bfloat16"]
    """Arithmetic of convolutions and matrix products that the recipe's setting comes to on this device."""
    trainer: int = TRAINER
    """Version of the trainer's arithmetic."""

    @property
    def digest(self) -> str:
        """Identity of the question: a hexadecimal SHA-256; words for people do not count."""
        content = {
            "space": self.space.model_dump(mode="json", exclude={"name"}),
            "sizing": [self.sizing, self.fitting],
            "sampler": self.sampler,
            "pruner": self.pruner,
            "budget": self.budget.to_mapping(),
            "recipe": self.recipe.digest,
            "data": self.data.key,
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "trainer": self.trainer,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def default_name(self) -> str:
        """Name of the study where the user gives none: the same question finds its study again."""
        data = self.data.name.partition(":")[0]
        return f"{data}-{self.digest[:8]}"

    def differences(self, other: StudySettings) -> list[str]:
        """Names of the parts in which two questions differ."""
        fields = ("space", "sizing", "fitting", "sampler", "pruner", "budget", "seed", "device", "precision", "trainer")
        differing = [field for field in fields if getattr(self, field) != getattr(other, field)]
        if self.recipe.digest != other.recipe.digest:
            differing.append("recipe or epochs")
        if self.data.split_fingerprint != other.data.split_fingerprint:
            differing.append("data, or train or validation size")
        elif self.data.key != other.data.key:
            differing.append("data")
        return differing
