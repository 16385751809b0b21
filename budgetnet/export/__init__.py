"""Trained networks in files that are used without budgetnet: weights, ONNX, torch's own programs, plain Python.

What is exported is the plain network of a run's best epoch, on the CPU and in evaluation mode; a recipe's
`test_time_flip` and `test_time_shifts` are not part of it. ONNX, programs and Python files take images as float32
(N, channels, height, width) with values from 0 to 1, for any N, and normalise them by themselves; all of them give
logits, float32 (N, classes). A file of weights alone is for the network as budgetnet builds it, which takes images that
are normalised already.
"""

from budgetnet.export.exporting import FORMATS, SUFFIXES, Exported, Format, export

__all__ = ["FORMATS", "SUFFIXES", "Exported", "Format", "export"]
