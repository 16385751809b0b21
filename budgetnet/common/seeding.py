"""Independent random streams from one seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose, from 0 to 2**63 - 1: unrelated to that of any other purpose, the same on every machine.

    A run that is resumed in the middle needs no stored generator: the stream of an epoch follows from its number.
    """
    content = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 1
