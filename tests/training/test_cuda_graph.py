"""CUDA graphs against direct calls of the same function."""

from __future__ import annotations

import pytest
import torch

from budgetnet.training.cuda_graph import GraphedCallable

CPU = torch.device("cpu")


@pytest.mark.parametrize("record", [True, False])
def test_without_a_graph_each_call_runs_the_function(record: bool) -> None:
    calls: list[int] = []
    graphed = GraphedCallable(lambda: calls.append(1), device=CPU, record=record)
    for number in range(1, 7):
        graphed()
        assert len(calls) == number
    assert not graphed.captured
    assert graphed.fallback_reason


@pytest.mark.gpu
def test_each_call_of_a_graph_runs_the_function_once() -> None:
    counter = torch.zeros((), device="cuda")
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        counter.add_(1)

    graphed = GraphedCallable(work, device=counter.device)
    for number in range(1, 9):
        graphed()
        assert counter.item() == number
    assert graphed.captured
    assert len(calls) == 4, "three warm-up calls and the capture"


@pytest.mark.gpu
def test_a_function_that_cannot_be_captured_is_called_directly(caplog: pytest.LogCaptureFixture) -> None:
    counter = torch.zeros((), device="cuda")

    def work() -> None:
        counter.add_(1)
        counter.item()  # synchronises with the device, which a capture does not allow

    graphed = GraphedCallable(work, device=counter.device)
    for number in range(1, 9):
        graphed()
        assert counter.item() == number
    assert not graphed.captured
    assert graphed.fallback_reason in caplog.text
