"""Ablations: study files, variants and results. Does not import torch, except for training."""

from budgetnet.experiments.ablation.design import Design
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant

__all__ = ["AblationStudy", "Design", "Variant"]
