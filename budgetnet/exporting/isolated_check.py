"""Script that runs an exported Python file in a process that cannot import budgetnet.

python -I isolated_check.py MODULE.py WEIGHTS.safetensors IMAGES.safetensors LOGITS.safetensors THREADS
"""

from __future__ import annotations

import runpy
import sys

# Makes every `import budgetnet` fail, whether it is installed or not.
sys.modules["budgetnet"] = None  # type: ignore[assignment]

import torch  # noqa: E402 - after the line above
from safetensors.torch import load_file, save_file  # noqa: E402 - likewise


def write_logits(module: str, weights: str, images: str, logits: str) -> None:
    """Write the logits of the exported network for each batch of images."""
    network = runpy.run_path(module)["load"](weights)
    with torch.no_grad():
        save_file({name: network(batch) for name, batch in load_file(images).items()}, logits)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[5]))
    write_logits(*sys.argv[1:5])
