"""Measurements of budgetnet beside other tools, made on the machine where they are asked for."""
