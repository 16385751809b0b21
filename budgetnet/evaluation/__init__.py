"""Evaluation of trained networks, and the only door to the test set."""
