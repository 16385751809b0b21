"""Data sets: loading, train/validation split and the sealed test set.

The package itself does not import torch; modules that move images to a device and augment them there do.
"""

from budgetnet.data.dataset import DataSet, declared_cifar10
from budgetnet.data.sources import load_dataset
from budgetnet.data.split import Split, split
from budgetnet.data.test_set import SealedTestSet, read_openings

__all__ = ["DataSet", "SealedTestSet", "Split", "declared_cifar10", "load_dataset", "read_openings", "split"]
