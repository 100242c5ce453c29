"""boto3 clients: made on first use, one set for each process, one client for each timeout."""

from __future__ import annotations

import os
import threading
from typing import Any

from cachestore.errors import ConfigError
from cachestore.locks import NO_FORKS
from cachestore.options import RemoteOptions

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
# Rounding up to these keeps the number of clients, each with its own connections, small.
_LADDER = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)


def rounded_timeout(seconds: float | None) -> float | None:
    """The next step of a short ladder; None (the client's own) stays None."""
    if seconds is None:
        return None
    return next((step for step in _LADDER if seconds <= step), _LADDER[-1])


class _Process:
    """What must not be shared with a forked child: a lock, a session, connections."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.session: Any = None
        self.clients: dict[float | None, Any] = {}


class Clients:
    """Hands out the boto3 S3 client for a timeout; safe for threads and after a fork."""

    def __init__(self, options: RemoteOptions, pool_size: int) -> None:
        self._options = options
        self._pool_size = max(10, pool_size)
        self._process = _Process()

    def get(self, timeout: float | None = None) -> Any:
        """The client of this process; `timeout` seconds for connecting and for each silence."""
        process = self._mine()
        step = rounded_timeout(timeout)
        client = process.clients.get(step)
        if client is None:
            with process.lock:
                client = process.clients.get(step)
                if client is None:
                    with NO_FORKS:  # boto3 is imported here, also while clients are made
                        client = process.clients[step] = self._make(process, step)
        return client

    def close(self) -> None:
        """Close all connections of this process; the next `get` makes new ones."""
        process, self._process = self._mine(), _Process()
        with process.lock:
            clients = list(process.clients.values())
        for client in clients:
            client.close()

    def _mine(self) -> _Process:
        # A child never takes the parent's lock: another thread may have held it at the fork.
        process = self._process
        if process.pid != os.getpid():
            process = self._process = _Process()
        return process

    def _make(self, process: _Process, timeout: float | None) -> Any:
        """A client that depends on nothing in the environment but proxies and CA bundles."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        "host".encode("idna")  # imported with the first request otherwise, perhaps during a fork
        options = self._options
        config = Config(
            region_name=options.region or "auto",
            signature_version="s3v4",
            # Signed bodies: the remote refuses bytes that are not the ones that we hashed.
            s3={"addressing_style": "path", "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=timeout or CONNECT_TIMEOUT,
            read_timeout=timeout or READ_TIMEOUT,
            max_pool_connections=self._pool_size,
            tcp_keepalive=True,
            use_fips_endpoint=False,
            use_dualstack_endpoint=False,
        )
        try:
            if process.session is None:
                # A missing AWS_PROFILE must not matter: the keys are given.
                core = Session(session_vars={"profile": (None, None, None, None)})
                process.session = boto3.session.Session(botocore_session=core)
            return process.session.client(
                "s3",
                endpoint_url=options.endpoint,
                aws_access_key_id=options.access_key,
                aws_secret_access_key=options.secret_key,
                aws_session_token=options.session_token,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"cannot use {options.endpoint!r}: {error}") from None
