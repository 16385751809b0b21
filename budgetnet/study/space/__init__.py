"""What a search may propose: the space as a document, what a draw stands for, and many draws counted at once."""

from budgetnet.model.budget import Sizing
from budgetnet.study.space.costs import Columns, Costs
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.smallest import Measure

__all__ = ["Columns", "Costs", "Measure", "SearchSpace", "Sizing"]
