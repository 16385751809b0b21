"""Notes, artifacts and figures of studies in optuna-dashboard, and its server.

The content comes from the study's storage and from run folders; nothing here trains, searches or imports torch.
"""

from budgetnet.visualization.dashboard.annotating import Annotated, annotate
from budgetnet.visualization.dashboard.server import DashboardServer
from budgetnet.visualization.dashboard.shown import annotate_shown, try_annotate

__all__ = ["Annotated", "DashboardServer", "annotate", "annotate_shown", "try_annotate"]
