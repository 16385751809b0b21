"""A worker program whose process kills itself in the first epoch of one run: the first that any such process trains."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from budgetnet.engines.worker import STOP, main
from budgetnet.training.run import TrainingRun

VICTIM = "BUDGETNET_TEST_VICTIM"
"""Environment variable: path of the file with the name of the run; without it no process dies."""

__all__ = ["STOP", "VICTIM"]

_train_epoch = TrainingRun._train_epoch


def _die(self: TrainingRun, *arguments: Any) -> Any:
    file = Path(os.environ[VICTIM])
    with suppress(FileExistsError), file.open("x") as stream:
        stream.write(self.folder.path.name)
    if file.read_text() == self.folder.path.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return _train_epoch(self, *arguments)


if __name__ == "__main__":
    if VICTIM in os.environ:
        TrainingRun._train_epoch = _die  # type: ignore[assignment, method-assign]
    os._exit(main())
