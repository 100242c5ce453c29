"""When a copy's bytes are hashed again before they are served."""

from __future__ import annotations

from cachestore.options import Verify

SAMPLE = 1 / 64
"""The share of looks at which `sample` hashes a copy."""


def is_due(verify: Verify, roll: float) -> bool:
    """Whether to hash now. `roll`: a random number, at least 0 and below 1."""
    return verify == "always" or (verify == "sample" and roll < SAMPLE)


def may_be_hot(verify: Verify) -> bool:
    """Whether a look may be skipped at the next read: not where every read is to be verified."""
    return verify != "always"
