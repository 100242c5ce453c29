"""Fixtures for apps that use this library; pytest finds them by itself once it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachestore.testing.r2 import R2Double


@pytest.fixture
def r2_double() -> Iterator[R2Double]:
    """A double of Cloudflare R2 with an empty bucket, of this test alone."""
    # Late: this module is loaded in every test run, also where nobody asks for a double.
    from cachestore.testing.r2 import R2Double

    with R2Double() as double:
        yield double
