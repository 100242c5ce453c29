"""How a partial copy that is whole becomes a copy."""

from __future__ import annotations

from cachestore.keys import Place
from cachestore.landed import Landed
from cachestore.progressive.job import Target, look
from cachestore.progressive.tools import Tools
from cachestore.remote.fetching import has_digest, verify_digest


class Landing:
    """One process at a time compares the whole with its digest, and admits it."""

    def __init__(self, target: Target, tools: Tools) -> None:
        self._target = target
        self._tools = tools
        self._refused: float | None = None

    def begin(self) -> bool:
        """False while another process does it; not for ever, as only one of two can rename it."""
        target = self._target
        if self._tools.partials.try_lock(target.row, target.layout.count):
            return True
        return not self._patient()

    def _patient(self) -> bool:
        """True for a while, from the first time that it was not its turn."""
        now = self._tools.clock.monotonic()
        self._refused = now if self._refused is None else self._refused
        return now - self._refused <= self._tools.options.flight_patience

    def end(self) -> None:
        self._tools.partials.unlock(self._target.row, self._target.layout.count)

    def land(self, place: Place, validated: float) -> Landed | None:
        """The copy; None: something is missing, or another time. Raises `Corrupt` and `OSError`.

        `validated`: when the remote last said that it is current (wall seconds).
        """
        target, row = self._target, self._target.row
        look(target, self._tools, 0, target.layout.count)
        if any(target.mask(n) != target.layout.whole(n) for n in range(target.layout.count)):
            return None
        if has_digest(row.info):
            verify_digest(target.fd, row.info)
        grant = self._tools.partials.grant(row)
        return self._tools.downloader.land(
            target.fd, row.part, row.info, grant, place, row.token, validated,
            patient=self._patient(),
        )  # fmt: skip
