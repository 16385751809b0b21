"""Number of workers that share a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from support import TINY, TINY_SPACE, tiny_recipe

import budgetnet as bn
from budgetnet.common.config import EngineOptions
from budgetnet.common.errors import InputError
from budgetnet.data import DataSet
from budgetnet.engines import gpu_sharing
from budgetnet.engines.choice import EngineChoice
from budgetnet.engines.gpu_sharing import CONTEXT, MOST, USED_SHARE, process_memory, share, with_workers_per_gpu
from budgetnet.runs.training_memory import TrainingMemory, training_memory
from budgetnet.study.config import SearchConfig
from budgetnet.study.request import sampled_trainings

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPACE: dict[str, Any] = {**TINY_SPACE, "recipe": {"batch_size": [8, 16, 32]}}


@examples(200)
@given(st.integers(0, 2**38), st.integers(CONTEXT, 2**37), st.integers(0, 64))
def test_all_processes_fit_and_one_more_would_not(free: int, needed: int, cores: int) -> None:
    workers = share(free, needed, cores=cores).workers
    assert 1 <= workers <= max(1, min(MOST, cores))
    assert workers == 1 or workers * needed <= USED_SHARE * free
    assert workers in (MOST, max(1, cores)) or (workers + 1) * needed > USED_SHARE * free


def test_a_process_needs_its_context_its_images_and_room_for_the_last_batch() -> None:
    training = TrainingMemory(weights=1, copies=2, optimizer=3, gradients=4, kept=50, images=6)
    assert process_memory(training, images=7) == CONTEXT + 7 + 66 + 50


def test_the_largest_training_decides_and_the_number_is_said(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_sharing, "free_gpu_memory", lambda: 10 * 2**30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(gpu_sharing, "available_cores", lambda: 16)
    small, large = (TrainingMemory(0, 0, 0, 0, kept=size, images=0) for size in (2**20, 2**30))
    said: list[str] = []
    config = with_workers_per_gpu(
        SearchConfig(per_gpu="auto"),
        device=CUDA,
        dataset=digits,
        trainings=lambda: [small, large, small],
        say=said.append,
    )
    needed = CONTEXT + digits.train_images.nbytes + 2 * 2**30
    assert config.per_gpu == int(0.9 * 10 * 2**30) // needed == 3
    assert said == [
        "per_gpu: 3; 10.00 GiB of the GPU are free, and the process of the largest training needs about 2.586 GiB"
    ]
    assert EngineChoice.of(config, device=CUDA)[:3] == ("local", 3, 3)


def test_without_a_gpu_nothing_is_shared(digits: DataSet) -> None:
    def never() -> Any:
        raise AssertionError

    given = SearchConfig(per_gpu="auto", workers=3)
    for config, device in ((SearchConfig(per_gpu="auto"), CPU), (SearchConfig(per_gpu=2), CUDA), (given, CUDA)):
        assert with_workers_per_gpu(config, device=device, dataset=digits, trainings=never, say=str) is config
    assert EngineChoice.of(SearchConfig(per_gpu="auto"), device=CPU)[:3] == ("local", 1, 1)
    assert EngineChoice.of(given, device=CUDA)[:3] == ("local", 3, 1)
    assert SearchConfig(per_gpu="4").per_gpu == 4
    with pytest.raises(InputError, match=r"^per_gpu = 'some': must be a whole number of at least 1, or auto$"):
        EngineOptions(per_gpu="some")


def test_sampled_trainings_are_those_of_candidates(digits: DataSet) -> None:
    options: dict[str, Any] = {"space": SPACE, "recipe": tiny_recipe(), "max_params": 20_000, "device": "cpu"}
    for sizing in ("fit", "reject"):
        found = list(sampled_trainings(SearchConfig(sizing=sizing, **options), digits, device=CPU))
        assert 1 < len(set(found)) <= len(found) <= 51
        assert all(each.gradients <= 4 * 20_000 for each in found)
    config = SearchConfig(enqueue=bn.zoo.resnet20, finalists=1, final_recipe=tiny_recipe(batch_size=64), **options)
    some = list(sampled_trainings(config, digits, device=CPU))
    own = bn.zoo.resnet20.adapted(input_shape=digits.input_shape, num_classes=digits.num_classes)
    assert some[-1] == training_memory(own, tiny_recipe(), precision="float32")
    # The images of a batch of the final recipe are more than those of any candidate's.
    assert max(each.images for each in some) == 64 * 4 * digits.input_shape[1] * digits.input_shape[2]


def test_a_search_on_a_cpu_takes_auto(digits: DataSet, tmp_path: Path) -> None:
    study = bn.search(
        data=digits,
        per_gpu="auto",
        space=TINY_SPACE,
        recipe=tiny_recipe(epochs=1),
        trials=1,
        enqueue=TINY,
        train_size=40,
        validation_size=20,
        device="cpu",
        out=tmp_path,
    )
    assert study.settings.config.per_gpu == "auto"
    assert study.count_outcomes()["trained"] == 1
