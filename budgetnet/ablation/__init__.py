"""What a part is worth: the file of an ablation study, and the variants that it comes to. Loads no torch."""

from budgetnet.ablation.design import Design
from budgetnet.ablation.study import AblationStudy
from budgetnet.ablation.variants import Variant

__all__ = ["AblationStudy", "Design", "Variant"]
