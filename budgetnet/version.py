"""The version of budgetnet, in the one place from which packaging, records and the command line take it."""

__version__ = "0.1.0"
