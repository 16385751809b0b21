"""Evaluation of trained networks; the only package that reads the test set."""
