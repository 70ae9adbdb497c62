"""A folder that other machines write to, over SMB, NFS, FTP or rsync (arrow 1).

Takes the images that lie in the folder itself, oldest first by time of change, then name; folders in it,
links, hidden files and names that are no image's (`.tmp`, `.part`, `.filepart`, `.crdownload`, …) are left
alone. A file is taken once its size and time of change stood still for `SETTLE_S`, an empty one for
`EMPTY_SETTLE_S`, and were the same before and after reading. A rename into place cannot be told from a
write over a network share, so it waits as long.

The folder is listed again and again (`inotify` says nothing of what other machines do), at most a
twentieth of the time; memory is bounded by `BATCH`, however many files there are, but for kept files,
which take about 60 bytes each. Where taken files go: `filing`.
"""

from __future__ import annotations

import errno
import heapq
import logging
import mimetypes
import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.ingest.sources.filing import Filing, Found, text_of
from services.ingest.sources.protocol import CapturedBefore, Settled, Shot, Unreadable, never_captured

logger = logging.getLogger(__name__)

# The longest pause that a copying program makes on a sound network; also the delay of every picture.
SETTLE_S = 0.5
# FTP and SMB make the file first and send its bytes when the other side is ready.
EMPTY_SETTLE_S = 10.0
# Files of one listing that are remembered: some 500 bytes each.
BATCH = 4096
# How long between listings: as soon as people notice while pictures come, and a twentieth of the time since
# the last one came, so that a thousand idle folders do not keep a core busy.
_SHORTEST_PAUSE_S, _LONGEST_IDLE_PAUSE_S = 0.25, 2.0
_PAUSE_SHARE = 0.05
# A listing that takes long is made seldom, so that it takes at most this share of the time.
_LISTING_SHARE = 0.05
_LONGEST_PAUSE_S = 30.0
# `Source.shots` promises a sign of life twice a second.
_SIGN_OF_LIFE_S = 0.5
_OF_THE_FILE = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENXIO})


class FolderSource:
    """Files of a folder, each once; may be opened again and then remembers what it took."""

    def __init__(
        self,
        folder: Path,
        *,
        keeps_files: bool = False,
        only_new: bool = False,
        captured_before: CapturedBefore = never_captured,
        filing: Filing | None = None,
    ) -> None:
        """Watch `folder`; touches nothing before `shots`.

        Args:
            folder: what to watch.
            keeps_files: leave files where they are instead of moving them when they are settled.
            only_new: leave files alone that are there already; for `keeps_files`.
            captured_before: asked before a file is read.
            filing: moves files; given by tests.
        """
        self._folder, self._captured_before = folder, captured_before
        self._filing = None if keeps_files else filing or Filing(folder)
        # Kept files that need no look any more, as hashes of name, time and size.
        self._kept: set[int] = set()
        self._skips_present = only_new
        self._seen: dict[Found, float] = {}
        self._place = (0, 0)

    def shots(self, stop: Event) -> Iterator[Shot | Unreadable | None]:
        """See `Source.shots`."""
        if self._filing:
            self._filing.prepare()
        lively_s = time.monotonic()
        while not stop.is_set():
            started_s = time.monotonic()
            is_all = self._look()
            now_s = time.monotonic()
            if self._seen:
                lively_s = now_s
            pause_s = min(max(_SHORTEST_PAUSE_S, (now_s - lively_s) * _PAUSE_SHARE), _LONGEST_IDLE_PAUSE_S)
            pause_s = min(max(pause_s, (now_s - started_s) / _LISTING_SHARE), _LONGEST_PAUSE_S)
            yield None
            yield from self._take_settled(stop, now_s + pause_s, is_all=is_all)
            if self._filing:
                self._filing.retry()

    def _take_settled(
        self, stop: Event, until_s: float, *, is_all: bool
    ) -> Iterator[Shot | Unreadable | None]:
        """Yield what was seen and stands still, until it is time to list again."""
        while not stop.is_set():
            for file in self._settled():
                if stop.is_set():
                    return
                # None for each that was taken before: moving thousands of them over a network takes long.
                yield self._take(file)
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not (is_all or self._seen):
                return
            stop.wait(min(left_s, _SHORTEST_PAUSE_S if self._seen else _SIGN_OF_LIFE_S))
            yield None

    def _settled(self) -> list[Found]:
        """Return files that were seen long enough ago, in order; `_read` tells whether they stood still."""
        now_s = time.monotonic()
        return [
            file
            for file, since_s in self._seen.items()
            if now_s - since_s >= (SETTLE_S if file.size_bytes else EMPTY_SETTLE_S)
        ]

    def _look(self) -> bool:
        """List the folder and note files that are not taken; tell whether those are all that there are.

        Raises:
            SourceUnavailable: the folder cannot be listed.
        """
        now_s = time.monotonic()
        still_there: set[int] = set()
        try:
            place = self._folder.stat()
            with os.scandir(self._folder) as entries:
                found = heapq.nsmallest(BATCH, self._untaken(entries, still_there))
        except OSError as error:
            raise self._unavailable(error) from error
        self._place = (place.st_dev, place.st_ino)
        self._kept &= still_there
        self._skips_present = False
        self._seen = {file: self._seen.get(file, now_s) for file in found}
        return len(found) < BATCH

    def _untaken(self, entries: Iterator[os.DirEntry[str]], still_there: set[int]) -> Iterator[Found]:
        """Yield the images of a listing that are not taken; note kept ones that are still there."""
        for entry in entries:
            # Asked before `stat`: a file that is settled in between is gone then, and not taken twice.
            if not is_image_name(entry.name) or (self._filing and self._filing.is_taken(entry.name)):
                continue
            try:
                if not entry.is_file(follow_symlinks=False):
                    continue
                state = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            # A file that somebody puts back from `done/` or `failed/` is wanted again. One that is kept is
            # not, whatever a backup does to its rights.
            ctime_ns = state.st_ctime_ns if self._filing else 0
            file = Found(state.st_mtime_ns, entry.name, state.st_size, ctime_ns)
            if self._filing is None:
                mark = hash(file)
                if mark in self._kept or self._skips_present:
                    still_there.add(mark)
                    self._kept.add(mark)
                    continue
            yield file

    def _take(self, file: Found) -> Shot | Unreadable | None:
        """Return a file's bytes or why there are none; None: not now, or taken before.

        Raises:
            SourceUnavailable: the folder went away meanwhile.
        """
        receipt = self._receipt(file)
        if settled := self._captured_before(receipt):
            self._mark_taken(file)
            self._on_settled(file, settled)
            return None
        subject = text_of(file.name)
        if file.size_bytes > CLAIM_LIMIT_BYTES:
            size_mb, limit_mb = file.size_bytes / 1e6, CLAIM_LIMIT_BYTES / 1e6
            reason = f"It has {size_mb:.1f} MB, at most {limit_mb:.1f} MB are taken."
            return self._unreadable(file, reason, ShedReason.TOO_LARGE)
        try:
            found = _read(self._folder / file.name, file)
        except OSError as error:
            if error.errno not in _OF_THE_FILE:
                self._check_place()
            return self._unreadable(file, f"It cannot be read: {error.strerror or error}.")
        if found is None:
            self._seen.pop(file, None)
            return None
        image, state = found
        self._mark_taken(file, state)
        content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        on_settled = partial(self._on_settled, file)
        return Shot(image, content_type, subject, receipt=receipt, on_settled=on_settled)

    def _unreadable(
        self, file: Found, reason: str, shed: ShedReason = ShedReason.UNREADABLE_SOURCE
    ) -> Unreadable:
        self._mark_taken(file)
        on_settled = partial(self._on_failed, file, reason)
        return Unreadable(text_of(file.name), reason, on_settled, self._receipt(file), shed)

    def _mark_taken(self, file: Found, state: os.stat_result | None = None) -> None:
        self._seen.pop(file, None)
        if self._filing:
            self._filing.take(file, state)
        else:
            self._kept.add(hash(file))

    def _on_settled(self, file: Found, settled: Settled) -> None:
        self._settle(file, f"Its frame was let go: {settled.shed}." if settled.shed else None)

    def _on_failed(self, file: Found, reason: str, _: Settled) -> None:
        self._settle(file, reason)

    def _settle(self, file: Found, reason: str | None) -> None:
        if self._filing:
            self._filing.settle(file, reason)

    def _receipt(self, file: Found) -> str:
        path = os.fsencode(self._folder / file.name).decode("utf-8", "backslashreplace")
        return f"{path}|{file.mtime_ns}|{file.size_bytes}|{file.ctime_ns}"

    def _check_place(self) -> None:
        """Tell a file's fault from the folder's: a share that goes away takes all of its files with it.

        Raises:
            SourceUnavailable: the folder is not there any more, or another one is mounted over it.
        """
        try:
            with os.scandir(self._folder) as entries:
                next(entries, None)
            place = self._folder.stat()
        except OSError as error:
            raise self._unavailable(error) from error
        if (place.st_dev, place.st_ino) != self._place:
            message = f"The folder {text_of(self._folder)} was replaced by another while it was read."
            raise SourceUnavailable(message, CameraState.SOURCE_GONE)

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        name = text_of(self._folder)
        if isinstance(error, FileNotFoundError):
            return SourceUnavailable(f"The folder {name} is not there.", CameraState.SOURCE_GONE)
        if isinstance(error, NotADirectoryError):
            return SourceUnavailable(f"{name} is no folder.", CameraState.SOURCE_GONE)
        if isinstance(error, PermissionError):
            return SourceUnavailable(f"The folder {name} may not be read.", CameraState.UNAUTHORIZED)
        message = f"The folder {name} cannot be read: {error.strerror or error}."
        return SourceUnavailable(message, CameraState.UNREACHABLE)


def _read(path: Path, file: Found) -> tuple[bytes, os.stat_result] | None:
    """Return a file's bytes and state; None when it is not what was listed, or changed while it was read."""
    # A name may have become a link or a pipe since; neither is followed nor waited for.
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb", buffering=0) as opened:  # noqa: PTH123  # an open file, not a path
        if not _is_same(os.fstat(number), file):
            return None
        image, state = opened.read(), os.fstat(number)
        return (image, state) if len(image) == file.size_bytes and _is_same(state, file) else None


def _is_same(now: os.stat_result, file: Found) -> bool:
    return stat.S_ISREG(now.st_mode) and (now.st_mtime_ns, now.st_size) == (file.mtime_ns, file.size_bytes)


def is_image_name(name: str) -> bool:
    """Tell by its name whether a file is taken for an image; hidden files are not."""
    return not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES
