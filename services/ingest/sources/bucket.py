"""Objects under a prefix of a bucket (arrow 1).

Takes images by time of change, then key, from the prefix and all below it but `done/` and `failed/`. An
object that is accounted for moves there, under the day (UTC), by copy and deletion, or stays with
`keeps_files`. Objects appear whole, so nothing is waited for. Memory is bounded by `BATCH`, but for kept
objects, which take about 60 bytes each.
"""

from __future__ import annotations

import heapq
import logging
import mimetypes
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from threading import Event

from services.adapters.object_store import ObjectEntry, ObjectStore
from services.domain.camera import CameraState
from services.domain.errors import BadRequest, SourceUnavailable, StoreUnavailable, UnknownObject
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES, INLINE_LIMIT_BYTES
from services.ingest.sources.filing import DONE, FAILED, REASON_SUFFIX
from services.ingest.sources.folder import is_image_name
from services.ingest.sources.protocol import CapturedBefore, Settled, Shot, Unreadable, never_captured

logger = logging.getLogger(__name__)

# Objects of one listing that are remembered: some 700 bytes each.
BATCH = 1024
# A request takes tens of milliseconds: so many small objects are read ahead, and moves go beside.
READ_AHEAD = 4
WORKERS = 8
MOVING = 16
# Every listing is paid for: soon after the last picture, and ever more seldom while none comes.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
_PAUSE_SHARE = 0.1
_SIGN_OF_LIFE_S = 0.5

_Key = tuple[str, str]


class BucketSource:
    """Objects under a prefix, each once; may be opened again and then remembers what it took."""

    def __init__(
        self,
        store: ObjectStore,
        prefix_uri: str,
        *,
        keeps_files: bool = False,
        captured_before: CapturedBefore = never_captured,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take from `prefix_uri` (`s3://bucket/prefix`); asks the store nothing yet."""
        self._store, self._prefix = store, prefix_uri.rstrip("/")
        self._keeps, self._captured_before, self._now = keeps_files, captured_before, now
        # Objects that need no look any more, and of these the ones that have left their places. They are
        # forgotten between listings only: a page that was read before tells of them once more.
        self._taken: set[int] = set()
        self._gone: set[int] = set()
        self._settled: deque[tuple[ObjectEntry, str | None]] = deque()
        self._left: dict[_Key, tuple[ObjectEntry, str | None, StoreUnavailable]] = {}

    def shots(self, stop: Event) -> Iterator[Shot | Unreadable | None]:
        """See `Source.shots`."""
        lively_s = time.monotonic()
        while not stop.is_set():
            started_s = time.monotonic()
            batch = self._look()
            listing_s = time.monotonic() - started_s
            yield None
            if batch:
                yield from self._take_all(batch, stop)
                lively_s = time.monotonic()
            self._retry()
            if len(batch) == BATCH:
                continue
            pause_s = max(_SHORTEST_PAUSE_S, (time.monotonic() - lively_s) * _PAUSE_SHARE, 10 * listing_s)
            yield from _pause(stop, min(pause_s, _LONGEST_PAUSE_S))

    def _take_all(self, batch: list[ObjectEntry], stop: Event) -> Iterator[Shot | Unreadable | None]:
        """Yield a listing's objects; the next ones are read meanwhile, and settled ones move away."""
        ahead: deque[tuple[ObjectEntry, Future[bytes] | None]] = deque()
        moving: deque[Future[None]] = deque()
        waiting = iter(batch)
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="bucket") as pool:
            while not stop.is_set():
                while len(ahead) < READ_AHEAD and (entry := next(waiting, None)):
                    if settled := self._captured_before(self._receipt(entry)):
                        self._taken.add(_mark(entry))
                        self._on_settled(entry, settled)
                        self._file(pool, moving)
                        continue
                    is_small = entry.size_bytes <= INLINE_LIMIT_BYTES
                    ahead.append((entry, pool.submit(self._store.get, entry.uri) if is_small else None))
                if not ahead:
                    break
                yield self._take(*ahead.popleft())
                self._file(pool, moving)
            while moving:
                if wait([moving[0]], _SIGN_OF_LIFE_S).done:
                    moving.popleft()
                yield None

    def _file(self, pool: ThreadPoolExecutor, moving: deque[Future[None]]) -> None:
        """Move what was settled since beside the reading; waits while too many are on their way."""
        while self._settled:
            moving.append(pool.submit(self._move, *self._settled.popleft()))
        while len(moving) > MOVING:
            moving.popleft().result()

    def _receipt(self, entry: ObjectEntry) -> str:
        # An object that somebody puts back from `done/` or `failed/` is wanted again.
        again = "" if self._keeps else entry.modified_at.isoformat()
        return f"{entry.uri}|{entry.etag}|{again}"

    def _look(self) -> list[ObjectEntry]:
        """Return objects that are not taken, oldest first.

        Raises:
            SourceUnavailable: the bucket is gone, or the store refuses or does not answer.
        """
        self._taken -= self._gone
        self._gone.clear()
        listed: set[int] = set()
        try:
            entries = self._store.entries(self._prefix, skip=(DONE, FAILED))
            batch = heapq.nsmallest(BATCH, self._untaken(entries, listed), key=_age)
            if not batch and not listed and not self._store.has_bucket(self._prefix):
                raise self._no_bucket()
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        except UnknownObject as error:
            raise BadRequest(error.message) from error
        if self._keeps:
            self._taken &= listed
        return batch

    def _untaken(self, entries: Iterator[ObjectEntry], listed: set[int]) -> Iterator[ObjectEntry]:
        for entry in entries:
            if not is_image_name(entry.uri.rpartition("/")[2]):
                continue
            mark = _mark(entry)
            if mark in self._taken:
                listed.add(mark)
            else:
                yield entry

    def _take(self, entry: ObjectEntry, image: Future[bytes] | None) -> Shot | Unreadable:
        """Return an object's bytes or why there are none.

        Raises:
            SourceUnavailable: the store refuses or does not answer, or the bucket is gone.
        """
        receipt = self._receipt(entry)
        subject = entry.uri.removeprefix(self._prefix).lstrip("/")
        if entry.size_bytes > CLAIM_LIMIT_BYTES:
            size_mb, limit_mb = entry.size_bytes / 1e6, CLAIM_LIMIT_BYTES / 1e6
            reason = f"It has {size_mb:.1f} MB, at most {limit_mb:.1f} MB are taken."
            self._taken.add(_mark(entry))
            on_settled = partial(self._on_failed, entry, reason)
            return Unreadable(subject, reason, on_settled, receipt, ShedReason.TOO_LARGE)
        try:
            data = image.result() if image else self._store.get(entry.uri)
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        except UnknownObject:
            self._check_bucket()
            self._taken.add(_mark(entry))
            reason = "It was gone before it could be read."
            return Unreadable(subject, reason, partial(self._forget, entry), receipt)
        self._taken.add(_mark(entry))
        content_type = mimetypes.guess_type(subject)[0] or "application/octet-stream"
        return Shot(data, content_type, subject, receipt=receipt, on_settled=partial(self._on_settled, entry))

    def _check_bucket(self) -> None:
        """Tell one object's fault from the bucket's: a bucket that goes away takes all of its objects."""
        try:
            if not self._store.has_bucket(self._prefix):
                raise self._no_bucket()
        except StoreUnavailable as error:
            raise _unavailable(error) from error

    def _no_bucket(self) -> SourceUnavailable:
        bucket = self._prefix.split("/")[2]
        return SourceUnavailable(f"There is no bucket {bucket}.", CameraState.SOURCE_GONE)

    def _on_settled(self, entry: ObjectEntry, settled: Settled) -> None:
        self._settled.append((entry, f"Its frame was let go: {settled.shed}." if settled.shed else None))

    def _on_failed(self, entry: ObjectEntry, reason: str, _: Settled) -> None:
        self._settled.append((entry, reason))

    def _forget(self, entry: ObjectEntry, _: Settled) -> None:
        self._gone.add(_mark(entry))

    def _move(self, entry: ObjectEntry, reason: str | None) -> None:
        """Move a settled object to `done/`, or with a reason to `failed/`; never raises."""
        if self._keeps:
            return
        key = (entry.uri, entry.etag)
        try:
            target = self._target(entry, FAILED if reason else DONE)
            self._store.move(entry.uri, target, etag=entry.etag)
            if reason:
                self._store.put(target + REASON_SUFFIX, f"{reason}\n".encode())
        except StoreUnavailable as error:
            logger.warning("%s cannot be moved away: %s", entry.uri, error)
            self._left[key] = (entry, reason, error)
            return
        except UnknownObject:
            logger.info("%s is gone or was replaced before it was moved away", entry.uri)
        self._left.pop(key, None)
        self._gone.add(_mark(entry))

    def _target(self, entry: ObjectEntry, into: str) -> str:
        """Return where an object moves; an object of that name is not overwritten by other bytes."""
        name = entry.uri.removeprefix(self._prefix).lstrip("/")
        target = f"{self._prefix}/{into}/{self._now():%Y-%m-%d}/{name}"
        if self._store.exists(target):
            stem, _, suffix = target.rpartition(".")
            target = f"{stem}.{entry.etag.replace('/', '_')}.{suffix}"
        return target

    def _retry(self) -> None:
        """Try again to move what could not be moved.

        Raises:
            SourceUnavailable: still not; names the first object.
        """
        while self._settled:
            self._move(*self._settled.popleft())
        for entry, reason, _ in tuple(self._left.values()):
            self._move(entry, reason)
            if (entry.uri, entry.etag) in self._left:
                break
        for _, _, error in self._left.values():
            raise _unavailable(error, "Give these keys the right to write and delete, or keep the files.")


def _age(entry: ObjectEntry) -> tuple[datetime, str]:
    return entry.modified_at, entry.uri


def _mark(entry: ObjectEntry) -> int:
    return hash((entry.uri, entry.etag))


def _unavailable(error: StoreUnavailable, advice: str = "") -> SourceUnavailable:
    if error.details.get("is_refused"):
        message = f"The object store refuses the keys: {error.message.rstrip('.')}. {advice}".rstrip()
        return SourceUnavailable(message, CameraState.UNAUTHORIZED)
    return SourceUnavailable(error.message, CameraState.UNREACHABLE)


def _pause(stop: Event, pause_s: float) -> Iterator[None]:
    end_s = time.monotonic() + pause_s
    while (left_s := end_s - time.monotonic()) > 0 and not stop.wait(min(left_s, _SIGN_OF_LIFE_S)):
        yield None
