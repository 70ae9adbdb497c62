"""Deletes pixels whose time has run out, and pixels that nothing refers to (arrow 4).

Rows stay: `image_deleted_at` says when the pixels went, so the ledger and `loupe image` still explain.
An object goes when the last that needs it does: other inspections, dead letters, datasets. Only objects
under their hash in the frames bucket are touched; what others named, or put elsewhere, is theirs. Every
step may be repeated, also by two processes at once. Memory does not grow with the archive.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Result, Row, func, or_, select, tuple_, update

from services.adapters.clock import Clock
from services.adapters.database import reading, writing
from services.adapters.database.tables import camera_states, dataset_entries, inspections, quarantine
from services.adapters.metrics import Metrics
from services.adapters.object_store import ObjectEntry, ObjectStore
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.camera import CameraState
from services.domain.errors import RetryLater, UnknownObject
from services.domain.hosting import RETENTION_DAYS, RetentionClass
from services.domain.metrics import IMAGES_DELETED_BYTES, IMAGES_DELETED_TOTAL
from services.domain.topics import DAY_S, FRAMES, FRAMES_DLQ, INSPECTIONS
from services.results.sequences import in_chunks

logger = logging.getLogger(__name__)

_IMAGES = f"s3://{FRAMES_BUCKET}/sha256"
_SHA256 = re.compile(r"[0-9a-f]{64}")
PREFIXES = tuple(f"{number:02x}" for number in range(256))
# Nobody refers yet to an image whose frame waits in its topic (a day at most), or whose verdict waits in
# its own (a week at most): younger ones are no orphans.
ORPHAN_GRACE_S = FRAMES.retention_s + INSPECTIONS.retention_s
# A claim check is put when its frame is captured, but while Kafka is away the frame waits on its ingester's
# disk, for weeks where little comes. What may wait there is kept as long as most images; no longer, because
# an ingester that is gone for good would have everything kept.
SPOOLED_GRACE_S = 90 * DAY_S
# An ingester tells of its cameras every few seconds; one that is silent for longer may have left frames.
_TOLD_WITHIN = timedelta(minutes=10)
# An image that was put anew belongs to a verdict that may not be stored yet, though all others ran out.
# The stream puts an image that it goes on keeping every hour; results is behind by less than two days.
FRESH_S = 2 * DAY_S
# A dead letter may be redriven on its last day, and then waits in the topic.
LETTERS_S = FRAMES_DLQ.retention_s + FRAMES.retention_s
# Rows and objects of one step; their hashes are parameters of queries, which SQLite bounds.
_STEP = 500
# All prefixes are walked once in this time, some with every turn: listing a large bucket is work.
_WALK_S = DAY_S
# An image kept before there were classes.
_WITHOUT_CLASS = ""


@dataclass(frozen=True, slots=True)
class Amount:
    """Pixels: verdicts that have them, images, and their size."""

    rows: int = 0
    images: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        """Return both together."""
        return Amount(self.rows + other.rows, self.images + other.images, self.size_bytes + other.size_bytes)


class Retention:
    """Deletes; use one per thread."""

    def __init__(self, engine: Engine, store: ObjectStore, clock: Clock, *, is_dry: bool = False) -> None:
        """Delete from `store` what `engine` no longer asks for; `is_dry`: only say what.

        Attributes:
            is_stopping: set it to have a walk end after its step.
        """
        self._engine, self._store, self._clock, self._is_dry = engine, store, clock, is_dry
        self.is_stopping = threading.Event()

    def expire(self) -> Amount:
        """Delete the pixels of verdicts whose class has run out, then note it in their rows.

        Raises:
            RetryLater: database or object store are away; the next call goes on.
        """
        total = Amount()
        fresh_s = SPOOLED_GRACE_S if self._may_be_spooled() else FRESH_S
        for name, days in RETENTION_DAYS.items():
            if days is not None:
                for rows in self._expired(name, self._clock.now() - timedelta(days=days)):
                    total += self._expire(rows, fresh_s)
        return total

    def sweep_orphans(self, prefixes: Iterable[str] = PREFIXES) -> Amount:
        """Delete images that nothing refers to: claim checks and originals of frames that were not kept.

        Raises:
            RetryLater: database or object store are away; the next call goes on.
        """
        total = Amount()
        grace_s = SPOOLED_GRACE_S if self._may_be_spooled() else ORPHAN_GRACE_S
        for prefix in prefixes:
            old_before = self._clock.now() - timedelta(seconds=grace_s)
            entries = self._store.entries(f"{_IMAGES}/{prefix}")
            old = (one for one in entries if one.modified_at < old_before and _SHA256.fullmatch(_sha_of(one)))
            for step in in_chunks(old, _STEP):
                if self.is_stopping.is_set():
                    return total
                total += self._sweep(step, old_before)
        return total

    def _may_be_spooled(self) -> bool:
        """Tell whether frames wait on an ingester's disk, and say whose; some are on their way always."""
        told = camera_states.c
        is_away = told.told_at < self._clock.now() - _TOLD_WITHIN
        waiting = (told.spooled > 0) & (is_away | (told.state != CameraState.RUNNING.value))
        with reading(self._engine) as connection:
            camera = connection.execute(select(told.camera).where(waiting).limit(1)).scalar()
        if camera is not None:
            logger.info("orphans are kept longer: frames of camera %s wait on an ingester's disk", camera)
        return camera is not None

    def _expired(self, name: RetentionClass, before: datetime) -> Iterator[Sequence[Row[Any]]]:
        """Yield rows of a class that have run out, oldest first."""
        table = inspections.c
        names = (name, _WITHOUT_CLASS) if name is RetentionClass.STANDARD else (name,)
        place = tuple_(table.stored_at, table.inspection_id)
        for one in names:
            query = (
                select(inspections)
                .where(table.retention == one, table.stored_at < before, *_IS_KEPT)
                .where(table.image_uri.startswith(_IMAGES, autoescape=True))
                .order_by(table.stored_at, table.inspection_id)
                .limit(_STEP)
            )
            after: Any = None
            while not self.is_stopping.is_set():
                with reading(self._engine) as connection:
                    here = query if after is None else query.where(place > after)
                    rows = connection.execute(here).all()
                if not rows:
                    break
                after = tuple_(rows[-1].stored_at, rows[-1].inspection_id)
                yield rows

    def _expire(self, rows: Sequence[Row[Any]], fresh_s: float) -> Amount:
        now = self._clock.now()
        hashes = {row.image_sha256 for row in rows}
        hashes |= {row.original_sha256 for row in rows if row.original_sha256}
        with reading(self._engine) as connection:
            needed = _needed_by_verdicts(connection, hashes, now)
            needed |= _needed_by_others(connection, now, hashes=hashes)
        fresh_after = now - timedelta(seconds=fresh_s)
        sizes = [self._delete(sha256, fresh_after) for sha256 in sorted(hashes - needed)]
        if not self._is_dry:
            ids = [row.inspection_id for row in rows]
            statement = (
                update(inspections)
                .where(inspections.c.inspection_id.in_(ids), inspections.c.image_deleted_at.is_(None))
                .values(image_deleted_at=now)
            )
            with writing(self._engine) as connection:
                connection.execute(statement)
        return Amount(len(rows)) + _sum(sizes)

    def _sweep(self, entries: Sequence[ObjectEntry], old_before: datetime) -> Amount:
        hashes = {_sha_of(one) for one in entries}
        with reading(self._engine) as connection:
            needed = {sha256 for sha256, _, _ in _claims(connection, hashes)}
            lonely = hashes - needed
            if lonely:
                lonely -= _needed_by_others(connection, self._clock.now(), hashes=lonely)
        return _sum(self._delete(sha256, old_before) for sha256 in sorted(lonely))

    def _delete(self, sha256: str, fresh_after: datetime) -> int | None:
        """Delete an image unless it was put since; return its size, None when there was nothing to do."""
        uri = f"{_IMAGES}/{sha256[:2]}/{sha256}"
        try:
            entry = self._store.entry(uri)
        except UnknownObject:
            return None
        if entry.modified_at >= fresh_after:
            return None
        if not self._is_dry:
            self._store.delete(uri)
        return entry.size_bytes


class RetentionThread(threading.Thread):
    """Lets time run out for pixels, every so often, until `stop`."""

    def __init__(self, retention: Retention, metrics: Metrics, *, every_s: float) -> None:
        """Take turns every `every_s` seconds; the first comes after one of them."""
        super().__init__(name="retention", daemon=True)
        self._retention, self._metrics, self._every_s = retention, metrics, every_s
        self._share = min(len(PREFIXES), math.ceil(len(PREFIXES) * every_s / _WALK_S))
        self._next = 0

    def run(self) -> None:
        """Take turns; a neighbour that is away makes it wait for the next."""
        while not self._retention.is_stopping.wait(self._every_s):
            try:
                self.turn()
            except RetryLater as error:
                logger.warning("pixels stay for now: %s", error.message)

    def turn(self) -> None:
        """Expire what has run out, and look for orphans under the next prefixes.

        Raises:
            RetryLater: database or object store are away.
        """
        self._tell("retention", self._retention.expire())
        prefixes = [PREFIXES[(self._next + step) % len(PREFIXES)] for step in range(self._share)]
        self._tell("orphan", self._retention.sweep_orphans(prefixes))
        self._next = (self._next + self._share) % len(PREFIXES)

    def stop(self) -> None:
        """End after the step in hand, which is not waited for."""
        self._retention.is_stopping.set()

    def _tell(self, why: str, deleted: Amount) -> None:
        self._metrics.add(IMAGES_DELETED_TOTAL, deleted.images, why=why)
        self._metrics.add(IMAGES_DELETED_BYTES, deleted.size_bytes, why=why)
        if deleted != Amount():
            logger.info(
                "%s: %d images deleted (%.1f MB), %d verdicts without pixels from now on",
                why, deleted.images, deleted.size_bytes / 1e6, deleted.rows,
            )  # fmt: skip


def kept_by_class(engine: Engine) -> dict[RetentionClass, Amount]:
    """Return per class what is kept; an image that several verdicts keep counts for each of them.

    Raises:
        DatabaseUnavailable: no answer.
    """
    table = inspections.c
    query = select(table.retention, func.count(), func.sum(table.image_bytes)).where(*_IS_KEPT)
    kept = dict.fromkeys(RetentionClass, Amount())
    with reading(engine) as connection:
        for name, rows, size_bytes in connection.execute(query.group_by(table.retention)):
            retention = RetentionClass(name or RetentionClass.STANDARD)
            kept[retention] += Amount(rows, rows, int(size_bytes))
    return kept


_IS_KEPT = (inspections.c.image_uri.is_not(None), inspections.c.image_deleted_at.is_(None))


def _claims(connection: Connection, hashes: Iterable[str]) -> Iterator[Row[str, str, datetime]]:
    """Yield (hash, class, newest verdict) of the verdicts that keep images or originals of these hashes."""
    wanted, table = list(hashes), inspections.c
    for column in (table.image_sha256, table.original_sha256):
        query = select(column, table.retention, func.max(table.stored_at))
        query = query.where(column.in_(wanted), *_IS_KEPT).group_by(column, table.retention)
        rows: Result[str, str, datetime] = connection.execute(query)
        yield from rows


def _needed_by_verdicts(connection: Connection, hashes: Iterable[str], now: datetime) -> set[str]:
    """Return the hashes that a verdict keeps whose class has not run out."""
    needed = set()
    for sha256, retention, newest in _claims(connection, hashes):
        days = _DAYS.get(retention)
        if days is None or newest >= now - timedelta(days=days):
            needed.add(sha256)
    return needed


# By name; a class that this version does not know is kept.
_DAYS: Mapping[str, int | None] = {
    _WITHOUT_CLASS: RETENTION_DAYS[RetentionClass.STANDARD],
    **{name.value: days for name, days in RETENTION_DAYS.items()},
}


def _needed_by_others(connection: Connection, now: datetime, *, hashes: Iterable[str]) -> set[str]:
    """Return the hashes that a dead letter or a dataset refers to."""
    wanted = list(hashes)
    letters, entries = quarantine.c, dataset_entries.c
    recent = letters.failed_at >= now - timedelta(seconds=LETTERS_S)
    queries = (
        select(letters.image_sha256, letters.original_sha256).where(
            or_(letters.image_sha256.in_(wanted), letters.original_sha256.in_(wanted)), recent
        ),
        select(entries.image_sha256).where(entries.image_sha256.in_(wanted)),
    )
    return {sha256 for query in queries for row in connection.execute(query) for sha256 in row if sha256}


def _sha_of(entry: ObjectEntry) -> str:
    return entry.uri.rsplit("/", 1)[1]


def _sum(sizes: Iterable[int | None]) -> Amount:
    found = [size for size in sizes if size is not None]
    return Amount(0, len(found), sum(found))
