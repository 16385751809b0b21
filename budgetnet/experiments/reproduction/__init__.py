"""Reproduction of the paper: runs to train for each of its claims, and results from their records.

Results are computed from records alone, so that every number can be traced to a run folder, without torch.
"""
