"""Support for tests of code that must not synchronise host and device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoHostSynchronisation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that fails on operations that synchronise host and device or copy from the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "lift_fresh", "equal"}, name
        if name in {"index", "index_put_"}:
            assert all(index.dtype != torch.bool for index in args[1] if index is not None)
        return func(*args, **kwargs or {})
