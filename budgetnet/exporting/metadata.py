"""Metadata stored in exported files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from budgetnet.runs.records import RunRecord
from budgetnet.version import __version__

SCHEMA_VERSION = 1
NORMALISED = "float32 (N, channels, height, width): (pixels / 255 - mean) / std, channel by channel"
"""Input format of the network itself."""
PIXELS = "float32 (N, channels, height, width): pixels / 255; the network normalises them itself"
"""Input format of a network with built-in normalisation."""


def metadata_of(record: RunRecord, *, class_names: Sequence[str], input_format: str) -> dict[str, Any]:
    """Return the metadata of a run's network as plain data.

    The path of the data set is omitted, because exported files are shared.

    Args:
        record: the run.
        class_names: name of each class.
        input_format: `NORMALISED` or `PIXELS`.
    """
    identity, result = record.identity, record.result
    spec, data = identity.spec, identity.data
    return {
        "schema_version": SCHEMA_VERSION,
        "budgetnet": __version__,
        "run": identity.digest,
        "epoch": result.best_epoch,
        "spec": spec.to_mapping(),
        "params": result.params,
        "class_names": list(class_names),
        "input": input_format,
        "input_shape": list(spec.input_shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "output": "float32 (N, classes): logits; their softmax gives probabilities",
        "data": {
            "kind": data.name.partition(":")[0],
            "provenance": data.provenance,
            "fingerprint": data.fingerprint,
            "split_fingerprint": data.split_fingerprint,
        },
        "validation": {"correct": result.validation_correct, "images": result.validation_images},
    }


def as_json_strings(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the metadata with each value as JSON, for formats that store strings only."""
    return {name: json.dumps(value) for name, value in metadata.items()}
