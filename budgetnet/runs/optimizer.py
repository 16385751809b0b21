"""Recipe option: the optimiser."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from budgetnet.common.documents import Document, Real
from budgetnet.common.errors import InputError
from budgetnet.runs.schedule import UnitFraction


class OptimizerChoice(Document):
    """Optimiser of all weights, or with Muon of all but convolutions."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    """``sgd``: with the recipe's `momentum` and `nesterov`. ``adam``: with weight decay as an L2 penalty added to the
    gradient (Kingma and Ba 2015). ``adamw``: each step shrinks the weights by learning rate times weight decay
    (Loshchilov and Hutter 2019)."""
    betas: tuple[UnitFraction, UnitFraction] = (0.9, 0.999)
    """Decays of the averages of gradients and of squared gradients in Adam and AdamW."""
    epsilon: Annotated[Real, Field(gt=0, le=1)] = 1e-8
    """Added to the root of the average squared gradient in Adam and AdamW."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "sgd":
            for name, value in self:
                if name != "kind" and value != type(self).model_fields[name].default:
                    shown = list(value) if isinstance(value, tuple) else value
                    raise InputError(name, shown, "must be omitted for the optimiser sgd")
        return self
