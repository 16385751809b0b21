"""Data sets: loading them, splitting them once and for all, and keeping the test set sealed; none of it needs torch.

What puts images on a device and augments them there is in ``budgetnet.data.on_device``, which does.
"""

from budgetnet.data.dataset import DataSet, declared_cifar10
from budgetnet.data.sources import load_dataset
from budgetnet.data.split import Split, split
from budgetnet.data.test_set import SealedTestSet, read_openings

__all__ = ["DataSet", "SealedTestSet", "Split", "declared_cifar10", "load_dataset", "read_openings", "split"]
