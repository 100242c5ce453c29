"""The whole store against a plain dict, whatever happens to it."""

from __future__ import annotations

import pytest

from cachestore.testing.machine import StoreMachine, bounded


class Bounded(StoreMachine):
    """The same few examples in every run."""


class Random(StoreMachine):
    """Many, and others every time."""


TestStore = Bounded.TestCase
TestStore.settings = bounded(examples=8, steps=35)

TestStoreForLong = pytest.mark.torture(Random.TestCase)
TestStoreForLong.settings = bounded(examples=600, steps=80, derandomize=False)
