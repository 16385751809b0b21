"""A search whose worker processes and driver are killed and stopped at random, against the same search undisturbed.

`BUDGETNET_FAULTS` sets the number of faults. Most of the time is that of starting processes anew.
"""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import TINY_SPACE, finished, started, tiny_recipe, until, write_space
from worker_support import answers, trials_in, workers_of

SEARCH = ["search", "--space", "space.yaml", "--recipe", "recipe.yaml", "--max-params", "20k", "--device", "cpu"]
SEARCH += ["--train-size", "200", "--validation-size", "40", "--workers", "2", "--sampler", "random", "--json"]
SEARCH += ["--pruner", "none"]
_log = logging.getLogger(__name__)

FAULTS = int(os.environ.get("BUDGETNET_FAULTS", "8"))
MORE, EPOCHS = 6, 60
"""Candidates that a search is continued with when it has ended, and their epochs."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for a search's workers in /proc"),
]


def checkpoints(folder: Path) -> set[tuple[str, int]]:
    found = set()
    for path in folder.glob("runs/*/checkpoint.safetensors"):
        with suppress(FileNotFoundError):
            found.add((path.parent.name, path.stat().st_mtime_ns))
    return found


def has_moved_on(process: Any, folder: Path, before: set[tuple[str, int]]) -> bool:
    """Return whether every run in training has ended an epoch since, or the search is over.

    A candidate whose worker dies again and again within one epoch is failed, which is another case.
    """
    new = {name for name, _ in checkpoints(folder) - before}
    unfinished = {path.parent for path in folder.glob("runs/*/run.json")}
    unfinished = {path for path in unfinished if not (path / "result.json").exists()}
    return process.poll() is not None or (bool(unfinished) and all(path.name in new for path in unfinished))


def disturb(process: Any, chance: random.Random) -> str:
    """Kill or stop one of the processes of a search; return which."""
    fault = chance.choice(["worker", "worker", "hang", "driver"])
    workers = workers_of(process.pid)
    if fault == "driver" or not workers:
        process.kill()
        process.wait()
        return "driver"
    worker = chance.choice(workers)
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL if fault == "worker" else signal.SIGSTOP)
        if fault == "hang":
            # The length of the fault, not a wait for something.
            time.sleep(chance.uniform(0.1, 1.0))
            os.kill(worker, signal.SIGCONT)
    return fault


def test_every_candidate_ends_exactly_once_whatever_is_killed(tmp_path: Path) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    for folder in (calm, wild):
        folder.mkdir()
        write_space(folder / "space.yaml", TINY_SPACE)
        tiny_recipe(epochs=EPOCHS).save(folder / "recipe.yaml")
    chance, faults, wanted = random.Random(1), Counter[str](), MORE
    while faults.total() < FAULTS:
        with started(*SEARCH, "--trials", str(wanted), cwd=wild) as process:
            while faults.total() < FAULTS:
                until(functools.partial(has_moved_on, process, wild, checkpoints(wild)), timeout=240)
                if process.poll() is not None:
                    # However fast the machine is, there are candidates to disturb.
                    assert process.returncode == 0, process.communicate()
                    wanted += MORE
                    break
                fault = disturb(process, chance)
                faults[fault] += 1
                if fault == "driver":
                    break
    for folder in (wild, calm):
        done = finished(*SEARCH, "--trials", str(wanted), cwd=folder)
        assert done.returncode == 0, done.stderr
    trials = trials_in(wild)
    trained = [trial for trial in trials if trial.user_attrs.get("trained")]
    assert len(trained) == wanted
    assert len({trial.user_attrs["candidate"] for trial in trained}) == wanted
    assert not [trial for trial in trials if not trial.state.is_finished()]
    interrupted = [trial.number for trial in trials if trial.user_attrs.get("ended") == "interrupted"]
    assert sorted(trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs) == interrupted
    assert len(trials) == wanted + len(interrupted) + sum(
        trial.user_attrs.get("ended") == "duplicate" for trial in trials
    )
    assert answers(wild) == answers(calm)
    _log.info("%s: %d interruptions, %d candidates", dict(faults), len(interrupted), len(trained))
