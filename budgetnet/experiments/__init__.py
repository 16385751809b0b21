"""Experiments with a fixed plan: ablations and reproductions."""
