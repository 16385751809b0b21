"""Independent random streams from one seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive an independent seed from 0 to 2**63 - 1 for one purpose, the same on every machine.

    With the epoch number as part of the purpose, a resumed run needs no stored generator state.
    """
    content = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 1
