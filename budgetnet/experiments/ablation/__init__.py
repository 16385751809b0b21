"""What a part is worth: the file of an ablation study, and the variants that it comes to. Loads no torch."""

from budgetnet.experiments.ablation.design import Design
from budgetnet.experiments.ablation.study import AblationStudy
from budgetnet.experiments.ablation.variants import Variant

__all__ = ["AblationStudy", "Design", "Variant"]
