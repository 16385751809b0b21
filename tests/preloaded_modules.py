"""What commands load when they start, loaded once for the processes of `process_support`."""

import optuna.visualization
import pandas
import scipy.stats
import sklearn.datasets
import torch
import torchvision

import budgetnet.api.search
import budgetnet.cli.main
import budgetnet.experiments.ablation.results
import budgetnet.training.trainer
import budgetnet.visualization.report

__all__ = ["budgetnet", "optuna", "pandas", "scipy", "sklearn", "torch", "torchvision"]
