"""Search spaces: documents, networks of samples, fitted widths and costs of many samples at once."""

from budgetnet.model.budget import Sizing
from budgetnet.study.space.columns import Columns
from budgetnet.study.space.costs import Costs
from budgetnet.study.space.document import SearchSpace
from budgetnet.study.space.smallest import Measure

__all__ = ["Columns", "Costs", "Measure", "SearchSpace", "Sizing"]
