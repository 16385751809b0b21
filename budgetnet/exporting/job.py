"""Input of the code that writes a network to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from budgetnet.exporting import verification
from budgetnet.exporting.classifier import Classifier
from budgetnet.exporting.metadata import metadata_of
from budgetnet.exporting.programs import exported_program
from budgetnet.runs.records import RunRecord


class Job(NamedTuple):
    """A network to write, and where to."""

    record: RunRecord
    network: nn.Module
    """On the CPU, in evaluation mode."""
    sample: verification.Sample
    class_names: Sequence[str]
    path: Path
    """Temporary path of the file."""

    def with_normalisation(self, network: nn.Module) -> Classifier:
        """Return a network with the run's normalisation built in."""
        data = self.record.identity.data
        return Classifier(network, mean=data.mean, std=data.std).eval()

    def metadata(self, input_format: str) -> dict[str, Any]:
        """Return the metadata of the file."""
        return metadata_of(self.record, class_names=self.class_names, input_format=input_format)

    def program(self) -> torch.export.ExportedProgram:
        """Export the network with torch.export, for any batch size."""
        network = self.with_normalisation(self.network)
        program = exported_program(network, self.record.identity.spec.input_shape)
        for node in program.graph.nodes:
            # Stack traces hold paths of this machine.
            node.meta.pop("stack_trace", None)
        return program
