"""Recorded work against the same work done as it stands."""

from __future__ import annotations

import pytest
import torch

from budgetnet.training.cuda_graph import Replay

CPU = torch.device("cpu")


@pytest.mark.parametrize("record", [True, False])
def test_without_a_recording_each_call_does_the_work(record: bool) -> None:
    calls: list[int] = []
    replay = Replay(lambda: calls.append(1), device=CPU, record=record)
    for number in range(1, 7):
        replay()
        assert len(calls) == number
    assert not replay.replays
    assert replay.refused


@pytest.mark.gpu
def test_each_call_of_recorded_work_does_it_once() -> None:
    counter = torch.zeros((), device="cuda")
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        counter.add_(1)

    replay = Replay(work, device=counter.device)
    for number in range(1, 9):
        replay()
        assert counter.item() == number
    assert replay.replays
    assert len(calls) == 4, "three calls before the recording, and the recording"


@pytest.mark.gpu
def test_work_that_cannot_be_recorded_is_done_as_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    counter = torch.zeros((), device="cuda")

    def work() -> None:
        counter.add_(1)
        counter.item()  # waits for the device, which no recording can

    replay = Replay(work, device=counter.device)
    for number in range(1, 9):
        replay()
        assert counter.item() == number
    assert not replay.replays
    assert replay.refused in caplog.text
