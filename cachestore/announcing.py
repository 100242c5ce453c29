"""Uploads that were announced: noted when a URL is given, and given up when nobody confirms them.

What is removed is only ever what came by an announcement of this spool: an object in the bucket
says so itself, by a mark that is part of the URL's signature; a file of LOCAL_DIR is known by the
id of its put. So what was there before, or was put since, is never taken for it, whatever clocks
say. Whether an upload was confirmed is decided under the key's lock (L1): confirming removes the
notes and changes the key's token; giving up publishes a delete, if the token is still the one from
before the bucket was asked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from cachestore.core import Core
from cachestore.errors import (
    CacheStoreError,
    NotFound,
    RemoteError,
    SpoolError,
)
from cachestore.events import log
from cachestore.keys import Place
from cachestore.links import Announced
from cachestore.local.announcements import Content, Mark, Note, parse_mark
from cachestore.model import RemoteObject
from cachestore.writing import Writer

MARGIN = 3600.0
"""Seconds before the end in which another machine's upload is not taken over any more."""

_FORGOTTEN = 90 * 86400.0
"""Seconds after which notes of remotes that are not configured any more are removed."""


class Announcer:
    """Notes announcements, ends them, and removes what was never confirmed."""

    def __init__(self, core: Core, writer: Writer) -> None:
        self._core = core
        self._writer = writer
        self._notes = core.announcements

    # -- announcing ----------------------------------------------------------------------------

    def note(self, key: str, expires_in: int) -> str | None:
        """Note an upload that comes through the app; the note's id."""
        content = Content(key, through=True, free=True)
        note = self._note(content, expires_in)
        return None if note is None else note.id

    def mark(self, announced: Announced, expires_in: int) -> str | None:
        """Note an upload to the bucket; what it has to carry. None: there is nothing to say.

        The bucket is asked meanwhile whether the key exists: then nobody is to delete it later.
        """
        note = self._note(content := Content(announced.key), expires_in)
        if note is not None:
            self._core.workers.submit(partial(self._look, note, content))
        elif announced.size is not None:
            return None  # its size is signed
        return self._notes.mark(note, announced.max_size)

    def _note(self, content: Content, expires_in: int) -> Note | None:
        core = self._core
        within = core.options.upload_confirm_within
        if within is None:
            return None
        place = core.spool.place(content.key)
        try:
            if self._exists(content.key, place):
                return None
            note = self._notes.add(place, content, int(core.clock.now() + expires_in + within))
        except (OSError, SpoolError) as error:
            core.trouble("spool", error)
            return None
        core.janitor.start()
        return note

    def _exists(self, key: str, place: Place) -> bool:
        """As far as is known here."""
        core = self._core
        newest = core.newest(key, place)
        if newest is not None:
            return newest.operation == "put"
        if core.is_local(key):
            return core.folder.locate(key) is not None
        return core.catalog.get(key) is not None

    def _look(self, note: Note, content: Content) -> None:
        """Only what the bucket certainly had not before may be given up; else the note goes."""
        core = self._core
        place = core.spool.place(content.key)
        try:
            free = core.remote is not None and self._head(content.key) is None
            with core.spool.lock(place):
                if free:
                    self._notes.change(note, replace(content, free=True))
                else:
                    self._notes.remove([note])
        except (OSError, CacheStoreError) as error:
            core.trouble("remote", error)  # not known to be free, so it is never given up

    def _head(self, key: str) -> RemoteObject | None:
        core = self._core
        assert core.remote is not None, "callers know"
        try:
            return core.remote.head(key, timeout=core.options.miss_deadline, patience=0.0)
        except NotFound:
            return None

    # -- confirming ----------------------------------------------------------------------------

    def confirmed(self, key: str, place: Place, token: int) -> bool:
        """Decide that an upload counts: from now on nobody gives it up.

        False if the key changed since its `token` was read: then look at the upload again.
        """
        core = self._core
        with core.spool.lock(place):
            if core.board.token(place.slot) != token:
                return False
            try:
                # A note that a power cut brought back would give up what was confirmed.
                self._notes.remove_durably(place)
            except OSError as error:
                raise SpoolError(
                    f"cannot note that the upload of {key!r} counts: {error}; confirm again"
                ) from error
            core.board.change(place.slot)
        core.hot.forget(key)
        return True

    def refused(self, place: Place) -> None:
        """It was not what was announced, and its delete is published: nothing is left to do."""
        self._notes.remove(self._notes.of(place))

    def is_anothers(self, mark: Mark) -> bool:
        """True for an upload that another spool announced, and may give up."""
        return mark.due > 0 and mark.spool != self._notes.spool

    # -- giving up -----------------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove what was announced and not confirmed in time; how many files or objects.

        Stops at the first error of the remote: the notes stay for the next time.
        """
        core, gone = self._core, 0
        if core.options.upload_confirm_within is None:
            return 0
        try:
            for note in self._notes.due(core.clock.now()):
                gone += self._end(note)
        except RemoteError as error:
            core.trouble("remote", error)
        except (OSError, CacheStoreError) as error:
            core.trouble("spool", error)
        return gone

    def _end(self, note: Note) -> bool:
        """Deal with one note whose time is over; True if something was removed."""
        core = self._core
        content = self._notes.read(note)
        if content is None or not content.free:
            self._notes.remove([note])
            return False
        gone, over = False, note.due + _FORGOTTEN < core.clock.now()
        if core.spool.place(content.key).digest != note.digest:
            pass  # of another remote: until that one is configured again
        elif content.through:
            still = partial(self._notes.is_there, note)
            received = content.received
            gone = received is not None and self._writer.delete_received(
                content.key, received, still
            )
            over = True
        elif core.remote is not None and not core.is_local(content.key):
            gone, ended = self._end_in_the_bucket(note, content.key)
            over = over or ended
        if over:
            self._notes.remove([note])
        if gone:
            log.info("cachestore: %s was uploaded and never confirmed; deleted", content.key)
        return gone

    def _end_in_the_bucket(self, note: Note, key: str) -> tuple[bool, bool]:
        """Whether the object was removed, and whether the note is over."""
        core = self._core
        place = core.spool.place(key)
        # The token before all else: who confirms, puts or deletes from here on changes it.
        token = core.board.token(place.slot)
        if not self._notes.is_there(note) or core.newest(key, place) is not None:
            return False, False
        obj = self._head(key)
        mark = None if obj is None else parse_mark(obj.announced)
        if obj is None or mark is None or mark.id != note.id:
            return False, True
        within = core.options.upload_confirm_within or 0.0
        if core.clock.now() - obj.modified < within:
            return False, False  # by the bucket's clock it came just now: ours was wrong
        gone = self._writer.delete_unchanged(key, token, obj.announced)
        return gone, gone
