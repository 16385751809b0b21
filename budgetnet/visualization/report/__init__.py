"""A study as one page: collected from its records as plain data, then rendered as HTML that fetches nothing."""

from budgetnet.visualization.report.collect import collect
from budgetnet.visualization.report.content import Report
from budgetnet.visualization.report.page import render, require_page, write_report

__all__ = ["Report", "collect", "render", "require_page", "write_report"]
