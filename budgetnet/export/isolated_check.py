"""Asks a Python file that was exported, as somebody would who has no budgetnet; run as a program, never imported.

python -I isolated_check.py MODULE.py WEIGHTS.safetensors IMAGES.safetensors LOGITS.safetensors THREADS
"""

from __future__ import annotations

import runpy
import sys

# Whether it is installed or not, from here on it cannot be imported.
sys.modules["budgetnet"] = None  # type: ignore[assignment]

import torch  # noqa: E402 - behind the line above, as is the next
from safetensors.torch import load_file, save_file  # noqa: E402


def ask(module: str, weights: str, images: str, logits: str) -> None:
    """Writes what a module's network says of batches of images."""
    network = runpy.run_path(module)["load"](weights)
    with torch.no_grad():
        said = {name: network(batch) for name, batch in load_file(images).items()}
    save_file(said, logits)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    ask(*sys.argv[1:5])
