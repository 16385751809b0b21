"""budgetnet: find the best small image classifier under a hard parameter budget, and say why it is best."""
