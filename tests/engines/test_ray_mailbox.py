"""The mailbox between a driver and the workers of a Ray cluster, without a cluster."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import prepare, tiny_recipe

pytest.importorskip("ray", reason="needs the extra ray")

import ray

from budgetnet.data import DataSet
from budgetnet.engines.ray_engine import RayEngine
from budgetnet.engines.ray_worker import Mailbox


def test_events_of_the_latest_attempt_are_taken_and_no_others() -> None:
    async def run() -> None:
        mailbox = Mailbox()
        await mailbox.assign(0, 5)
        # A call that was made before the one above, and comes after it.
        await mailbox.assign(0, 3)
        assert await mailbox.put(0, 5, "epoch_end", (1,))
        assert not await mailbox.put(0, 3, "epoch_end", (2,))
        assert not await mailbox.put(1, 5, "epoch_end", (3,)), "another worker"
        await mailbox.assign(0, 6)
        assert not await mailbox.put(0, 5, "epoch_end", (4,))
        assert await mailbox.put(0, 6, "run_end", ())
        assert await mailbox.take() == [(0, 5, "epoch_end", (1,)), (0, 6, "run_end", ())]

    asyncio.run(run())


def test_an_answer_reaches_its_attempt_and_a_replaced_one_is_woken() -> None:
    async def run() -> None:
        mailbox = Mailbox()
        await mailbox.assign(0, 1)
        waiting = asyncio.create_task(mailbox.wait_for_answer(0, 1))
        await asyncio.sleep(0)
        await mailbox.answer(1, True)
        assert await waiting is True
        waiting = asyncio.create_task(mailbox.wait_for_answer(0, 1))
        await asyncio.sleep(0)
        await mailbox.assign(0, 2)
        assert await waiting is None
        assert await mailbox.wait_for_answer(0, 1) is None, "it asks too late"

    asyncio.run(run())


def test_attempts_increase_from_worker_to_worker_whatever_the_clock_says(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RayEngine(prepare(digits, tiny_recipe()), out=tmp_path, device="cpu", workers=2, per_gpu=1, store=None)
    engine._mailbox = SimpleNamespace(assign=SimpleNamespace(remote=lambda _, attempt: attempt))
    clock = itertools.count(1_000, -100)
    monkeypatch.setattr("budgetnet.engines.ray_engine.time.time_ns", lambda: next(clock))
    attempts = [engine._assign(worker) for worker in (0, 1, 1, 0, 1)]
    assert attempts == sorted(set(attempts))


def test_an_engine_that_was_interrupted_at_its_start_is_ended(
    digits: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RayEngine(prepare(digits, tiny_recipe()), out=tmp_path, device="cpu", workers=1, per_gpu=1, store=None)
    killed: list[object] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    # The next steps would be to share the images, and to wait for events.
    engine._mailbox = "mailbox"
    for _ in range(2):
        engine._disconnect()
        assert killed == ["mailbox"]
