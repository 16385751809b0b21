"""Evaluation of trained networks; the only room that opens the test set."""
