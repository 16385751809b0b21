"""Benchmarks of budgetnet, compared with other tools on this machine."""
