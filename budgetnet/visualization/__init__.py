"""Figures, reports and the dashboard: they only read records."""
