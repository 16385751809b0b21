"""The network as a torch module, built from its plan."""

from __future__ import annotations

from torch import Tensor, nn

from budgetnet.model.blocks import Head, ResnetBlock, Stem
from budgetnet.model.plan import Plan, lower
from budgetnet.model.spec import ModelSpec


class ResNet(nn.Module):
    """A residual network: stem, stages of residual blocks, head. Parameter names follow the plan's paths."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.stem = Stem(plan)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(*(ResnetBlock(block, activation=plan.activation) for block in stage))
                for stage in plan.stages
            )
        )
        self.head = Head(plan)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (batch, channels, height, width) to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits


def build(spec: ModelSpec) -> ResNet:
    """Build a network, initialised from torch's global random generator."""
    return ResNet(lower(spec))


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of a built network, including frozen ones."""
    return sum(parameter.numel() for parameter in network.parameters())
