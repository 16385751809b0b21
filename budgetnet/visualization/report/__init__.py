"""Reports: a study's results collected as plain data and rendered as a self-contained HTML page."""

from budgetnet.visualization.report.collect import collect, collect_experiments
from budgetnet.visualization.report.content import Report
from budgetnet.visualization.report.page import render, require_page, write_report

__all__ = ["Report", "collect", "collect_experiments", "render", "require_page", "write_report"]
