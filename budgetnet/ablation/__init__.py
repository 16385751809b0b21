"""What a part is worth: the file of an ablation study, and the variants that it comes to. Loads no torch."""

from budgetnet.ablation.study import AblationStudy
from budgetnet.ablation.variants import Design, Variant

__all__ = ["AblationStudy", "Design", "Variant"]
