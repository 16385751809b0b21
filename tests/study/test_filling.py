"""Use of what is left of a budget, in networks of many stages."""

from __future__ import annotations

import tracemalloc

import numpy as np

from budgetnet.model.budget import Budget
from budgetnet.study.space import SearchSpace
from budgetnet.study.space.fitting import fit


def test_deep_networks_need_no_more_memory_than_others() -> None:
    """With 14 stages there are 3**14 networks whose widths are a step away at most, or 38 MB for a number each."""
    space = SearchSpace.from_mapping(
        {"stages": [14, 14], "full_size_stages": [10, 10], "blocks": [1, 2], "growth": [1.0, 1.1]}
    )
    budget = Budget(max_params="150k")
    columns = space.sample(count=3, generator=np.random.default_rng(0))
    tracemalloc.start()
    for row in range(3):
        params = SearchSpace.params_at(columns, row)
        spec = fit(space, params, budget=budget, sizing="fit", input_shape=(3, 32, 32), num_classes=10)
        assert 0.95 * 150_000 < spec.params <= 150_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
