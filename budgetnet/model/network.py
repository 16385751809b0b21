"""The network as a torch module, built from its plan."""

from __future__ import annotations

from torch import Tensor, nn

from budgetnet.model.blocks import Head, ResnetBlock, Stem
from budgetnet.model.lowering import lower
from budgetnet.model.plan import Plan
from budgetnet.model.spec import ModelSpec


class ResNet(nn.Module):
    """A residual network: stem, stages of residual blocks, head. Parameter names follow the plan's paths."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.stem = Stem(plan.stem, activation=plan.activation)
        self.stages = nn.Sequential(*(nn.Sequential(*(ResnetBlock(block) for block in stage)) for stage in plan.stages))
        self.head = Head(plan.head, activation=plan.activation)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (batch, channels, height, width) to logits (batch, num_classes)."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits


def set_stochastic_depth(network: nn.Module, rate: float) -> None:
    """Set how often each block is dropped in training (Huang et al. 2016): linear in depth, from 0 at the stem.

    A dropped block is its shortcut alone; blocks without a shortcut are never dropped.

    Args:
        network: changed in place.
        rate: probability at the last block.
    """
    blocks = [module for module in network.modules() if isinstance(module, ResnetBlock)]
    for number, block in enumerate(blocks, 1):
        block.drop_rate = rate * number / len(blocks)


def build(spec: ModelSpec) -> ResNet:
    """Build a network, initialised from torch's global random generator."""
    return ResNet(lower(spec))


def count_parameters(network: nn.Module) -> int:
    """Count the parameters of a built network, including frozen ones."""
    return sum(parameter.numel() for parameter in network.parameters())
