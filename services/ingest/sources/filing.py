"""Where the files of a watched folder go once they are accounted for: `done/` or `failed/` (arrow 1).

Both lie in the folder itself, so that moving is a rename, also on a network share, and have a sub-folder
per day and hour (UTC), so that no folder holds more than an hour's files: `done/2026-11-21/14/a.jpg`.
A file in `failed/` has a `.reason.txt` beside it. Nothing is overwritten: an equal name gets a number.
What cannot be moved stays, is not taken again, and is tried again by `retry`.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable

logger = logging.getLogger(__name__)

DONE, FAILED = "done", "failed"
REASON_SUFFIX = ".reason.txt"
# Virus scanners and copying programs hold a file for seconds; longer than this somebody has to look.
GRACE_S = 30.0
# These do not pass by themselves within seconds, so nobody waits for them.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_RETRIED_AT_ONCE = 100
# A name has at most 255 bytes; this leaves room for a number.
_LONGEST_STEM_BYTES = 200


class Found(NamedTuple):
    """A file as a listing tells it; sorts by time of change, then name.

    Attributes:
        mtime_ns: when its bytes changed.
        name: its name in the folder.
        size_bytes: length.
        ctime_ns: when it came to its name or its rights changed; 0 where that does not matter.
    """

    mtime_ns: int
    name: str
    size_bytes: int
    ctime_ns: int = 0


class _Left(NamedTuple):
    """A file that could not be moved."""

    reason: str | None
    error: OSError
    since_s: float


class Filing:
    """Knows which files of a folder are taken, and moves them when they are settled; thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rename: Callable[[Path, Path], object] = Path.rename,
    ) -> None:
        """Work in `folder`; touches nothing yet."""
        self._folder, self._now, self._rename = folder, now, rename
        self._lock = Lock()
        # By name, with the state in which each was read, as far as it was.
        self._taken: dict[str, os.stat_result | None] = {}
        self._left: dict[Found, _Left] = {}
        self._made: dict[str, Path] = {}
        self._numbers: dict[Path, int] = {}

    def prepare(self) -> None:
        """Make `done/` and `failed/`, so that a share that takes no files is noticed before any is taken.

        Raises:
            SourceUnavailable: they cannot be made.
        """
        for into in (DONE, FAILED):
            folder = self._folder / into
            try:
                folder.mkdir(exist_ok=True)
            except FileNotFoundError:
                return  # the folder itself is gone, which the listing tells better
            except OSError as error:
                raise _unavailable(f"{text_of(folder)} cannot be made", error) from error
            if not os.access(folder, os.W_OK | os.X_OK):
                raise _unavailable(
                    f"{text_of(folder)} cannot be written to", PermissionError(errno.EACCES, "")
                )

    def is_taken(self, name: str) -> bool:
        """Tell whether a file is taken and still in its place."""
        return name in self._taken

    def take(self, file: Found, state: os.stat_result | None = None) -> None:
        """Note that a file is taken, and in which state it was read."""
        with self._lock:
            self._taken[file.name] = state

    def settle(self, file: Found, reason: str | None) -> None:
        """Move a taken file: to `done/`, or with a reason to `failed/`. Never raises."""
        with self._lock:
            self._settle(file, reason, time.monotonic())

    def retry(self) -> None:
        """Try again to move what could not be moved.

        Raises:
            SourceUnavailable: the disk is full, or something stays for `GRACE_S`; names the first file.
        """
        with self._lock:
            for file, left in tuple(self._left.items())[:_RETRIED_AT_ONCE]:
                self._settle(file, left.reason, left.since_s)
            if not self._left:
                return
            file, left = next(iter(self._left.items()))
        if left.error.errno in _FULL or time.monotonic() - left.since_s >= GRACE_S:
            what = f"{text_of(self._folder / file.name)} is accounted for, but cannot be moved away"
            raise _unavailable(what, left.error) from left.error

    def _settle(self, file: Found, reason: str | None, since_s: float) -> None:
        try:
            self._move(file, reason)
        except OSError as error:
            self._left[file] = _Left(reason, error, since_s)
            logger.warning("%s cannot be moved: %s", text_of(self._folder / file.name), error.strerror)
        else:
            self._left.pop(file, None)
            self._taken.pop(file.name, None)

    def _move(self, file: Found, reason: str | None) -> None:
        source = self._folder / file.name
        try:
            now = source.lstat()
        except FileNotFoundError:
            return
        if (now.st_mtime_ns, now.st_size) != (file.mtime_ns, file.size_bytes) or self._is_other(file, now):
            return  # another picture of the same name has come meanwhile, and is not taken yet
        target = self._target(file.name, FAILED if reason else DONE)
        self._rename(source, target)
        if reason:
            _write_reason(target, reason)

    def _is_other(self, file: Found, now: os.stat_result) -> bool:
        """Tell whether another file lies in the place of the one that was read, as old and as long as that.

        A change of rights alone is none, and some network shares number their files anew at any time.
        """
        read = self._taken.get(file.name)
        return read is not None and now.st_ino != read.st_ino and now.st_ctime_ns != read.st_ctime_ns

    def _target(self, name: str, into: str) -> Path:
        """Return a free path for a file; its folder exists."""
        folder = self._folder / into / self._now().strftime("%Y-%m-%d/%H")
        if folder != self._made.get(into) or not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self._made[into] = folder
            kept = self._made.values()
            self._numbers = {path: n for path, n in self._numbers.items() if path.parent in kept}
        wanted = target = folder / name
        # Numbers are remembered: a camera that names every picture alike must not count from 2 each time.
        number = self._numbers.get(wanted, 1)
        while os.path.lexists(target):
            number += 1
            short = os.fsdecode(os.fsencode(wanted.stem)[:_LONGEST_STEM_BYTES])
            target = folder / f"{short}.{number}{wanted.suffix}"
        if number > 1:
            self._numbers[wanted] = number
        return target


def _write_reason(target: Path, reason: str) -> None:
    try:
        target.with_name(target.name + REASON_SUFFIX).write_text(
            f"{reason}\n", encoding="utf-8", errors="replace"
        )
    except OSError as error:
        logger.warning(
            "the reason for %s cannot be written (%s): %s", text_of(target), error.strerror, reason
        )


def _unavailable(what: str, error: OSError) -> SourceUnavailable:
    if error.errno in _FULL:
        return SourceUnavailable(f"{what}: the disk is full.", CameraState.DISK_FULL)
    why = os.strerror(error.errno) if error.errno else str(error)
    advice = "Let this program write there, or let the camera keep its files"
    return SourceUnavailable(f"{what}: {why}. {advice}.", CameraState.MISCONFIGURED)


def text_of(name: str | Path) -> str:
    """Return a name as text: one that is no UTF-8 has a readable stand-in, because headers are text."""
    return os.fsencode(name).decode("utf-8", "replace")
