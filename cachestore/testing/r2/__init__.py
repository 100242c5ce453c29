"""A double of Cloudflare R2 for tests: as strict as R2, and it breaks when it is told to.

    with R2Double() as double:
        client = boto3.client("s3", endpoint_url=double.endpoint, ...)
        double.rules.add("status", status=503, method="PUT", key="a/*", count=2)
        assert double.log.count(operation="PutObject", status=503) == 2

moto keeps the objects (`pip install "moto[server]"`). It runs in threads of this process, or by
itself: `python -m cachestore.testing.r2 --port 0 --bucket demo`.
"""

from __future__ import annotations

from cachestore.testing.r2.double import R2Double
from cachestore.testing.r2.log import Entry, RequestLog
from cachestore.testing.r2.rules import ACTIONS, Rule, Rules

__all__ = ["ACTIONS", "Entry", "R2Double", "RequestLog", "Rule", "Rules"]
