"""A study as optuna-dashboard shows it: notes on trials and on the study, their files and figures, and the server.

Whatever is shown comes from the study's storage and from run folders; nothing here trains, searches or loads torch.
"""

from budgetnet.visualization.dashboard.annotating import Annotated, annotate
from budgetnet.visualization.dashboard.server import DashboardServer
from budgetnet.visualization.dashboard.shown import annotate_shown, try_annotate

__all__ = ["Annotated", "DashboardServer", "annotate", "annotate_shown", "try_annotate"]
