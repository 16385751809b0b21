"""What an exported file says of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from budgetnet.runs.records import RunRecord
from budgetnet.version import __version__

VERSION = 1
"""Version of what an exported file says of itself."""
NORMALISED = "float32 (N, channels, height, width): (pixels / 255 - mean) / std, channel by channel"
"""Images that the network itself takes."""
PIXELS = "float32 (N, channels, height, width): pixels / 255; the network normalises them by itself"
"""Images that a network takes together with its normalisation."""


def facts_of(record: RunRecord, *, class_names: Sequence[str], images: str) -> dict[str, Any]:
    """What a file says of a run's network, as plain data.

    Where the data set lay on this machine is not among it, as exported files are handed on.

    Args:
        record: the run.
        class_names: name of each class.
        images: what the network takes, in words: `NORMALISED` or `PIXELS`.
    """
    identity, result = record.identity, record.result
    spec, data = identity.spec, identity.data
    return {
        "schema_version": VERSION,
        "budgetnet": __version__,
        "run": identity.digest,
        "epoch": result.best_epoch,
        "spec": spec.to_mapping(),
        "params": result.params,
        "class_names": list(class_names),
        "input": images,
        "input_shape": list(spec.input_shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "output": "float32 (N, classes): logits; softmax makes probabilities of them",
        "data": {
            "kind": data.name.partition(":")[0],
            "provenance": data.provenance,
            "fingerprint": data.fingerprint,
            "split_fingerprint": data.split_fingerprint,
        },
        "validation": {"correct": result.validation_correct, "images": result.validation_images},
    }


def as_texts(facts: dict[str, Any]) -> dict[str, str]:
    """The same, each value as JSON, for formats that keep texts by name."""
    return {name: json.dumps(value) for name, value in facts.items()}
