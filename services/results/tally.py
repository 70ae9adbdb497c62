"""Counting what was stored: Prometheus metrics, and the counts per camera that the live view shows.

Counters start from the database, so that after a restart Prometheus and the database still say the same.
That holds for one process; several would each start from all. Histograms and events start from zero.

Anyone may publish under any camera name, and Prometheus keeps every label value it ever saw: the first
`MOST_CAMERAS` cameras have series of their own, all others share `camera="other"`.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Engine, Table, func, select
from sqlalchemy.sql import ColumnElement

from services.adapters.database import reading
from services.adapters.database.tables import (
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.adapters.metrics import Metrics
from services.domain.inspection import COUNTING_ROLES, Inspection
from services.domain.metrics import (
    CAPTURED_TOTAL,
    DEAD_LETTERS_TOTAL,
    DUPLICATES_TOTAL,
    EVENTS_TOTAL,
    INSPECTIONS_TOTAL,
    LATENCY_SECONDS,
    QUARANTINED_TOTAL,
    SHED_TOTAL,
    STAGE_SECONDS,
)
from services.results.batch import Refused
from services.results.drift import DriftWatch
from services.results.rows import latency_ms
from services.results.store import Declared, Judged, Row
from services.wire.event import event_type_of

MOST_CAMERAS = 1000
OTHER_CAMERAS = "other"
# Cameras whose counts the live view shows; a name costs a hundred bytes.
_MOST_COUNTED = 20_000


class CameraLabels:
    """Which cameras have metrics under their own names: the first that come, as many as there is room for."""

    def __init__(self, most: int = MOST_CAMERAS) -> None:
        """Make room for `most` names."""
        self._most = most
        self._named: set[str] = set()

    def of(self, camera: str) -> str:
        """Return the label of a camera."""
        if camera not in self._named:
            if len(self._named) >= self._most:
                return OTHER_CAMERAS
            self._named.add(camera)
        return camera


class Tally:
    """Counts; thread-safe. Called once per batch, after it was stored and published."""

    def __init__(self, metrics: Metrics) -> None:
        """Count into `metrics`."""
        self._metrics = metrics
        self._labels = CameraLabels()
        self._drift = DriftWatch(metrics)
        self._cameras: dict[str, Counter[str]] = defaultdict(Counter)
        self._lock = threading.Lock()

    def start_from(self, engine: Engine) -> None:
        """Begin where the database stands.

        Raises:
            DatabaseUnavailable: no answer.
        """
        judged, captured, put_off = inspections.c, ledger_captured.c, quarantine.c
        kind = (judged.project, judged.camera, judged.model_version, judged.is_anomalous, judged.role)
        with reading(engine) as connection:
            # First the cameras that ingesters know: their names come before those that anyone may invent.
            for camera, count in connection.execute(
                select(captured.camera, _frames_of(ledger_captured)).group_by(captured.camera)
            ):
                self._add_captured(camera, int(count))
            for *labels, count in connection.execute(select(*kind, func.count()).group_by(*kind)):
                self._add_inspections(*labels, count=count)
            for row in connection.execute(
                select(put_off.camera, put_off.cause, func.count()).group_by(put_off.camera, put_off.cause)
            ):
                self._add_quarantined(*row)
            for shed, frames in (
                (ledger_shed, func.count()),
                (ledger_shed_ranges, _frames_of(ledger_shed_ranges)),
            ):
                by_reason = select(shed.c.camera, shed.c.reason, frames).group_by(
                    shed.c.camera, shed.c.reason
                )
                for camera, reason, count in connection.execute(by_reason):
                    self._add_shed(camera, reason, int(count))

    def judged(self, stored: Judged) -> None:
        """Count first writes with their latency and stages; repeats apart."""
        for one in stored.first:
            what = one.what
            about = (what.project, what.camera, what.model_version, what.is_anomalous, what.role)
            self._add_inspections(*about, count=1)
            seconds = latency_ms(what.captured_at, stored.stored_at) / 1000
            self._metrics.observe(LATENCY_SECONDS, seconds, project=what.project)
            for stage, took_ms in what.stage_ms.items():
                self._metrics.observe(STAGE_SECONDS, took_ms / 1000, stage=stage)
            store_s = max(0.0, (stored.stored_at - one.record.recorded_at).total_seconds())
            self._metrics.observe(STAGE_SECONDS, store_s, stage="store")
        self._drift.judged((self._label(one.what.camera), one.what) for one in stored.first)
        for project, count in stored.repeats.items():
            self._metrics.add(DUPLICATES_TOTAL, count, project=project)

    def events(self, told: Sequence[Inspection]) -> None:
        """Count published events."""
        for (project, kind), count in Counter((one.project, event_type_of(one)) for one in told).items():
            self._metrics.add(EVENTS_TOTAL, count, project=project, type=kind)

    def declared(self, stored: Declared) -> None:
        """Count frames declared captured and shed."""
        for row in stored.captured:
            self._add_captured(row["camera"], row["last"] - row["first"] + 1)
        for row in stored.shed:
            self._add_shed(row["camera"], row["reason"], 1)
        for row in stored.shed_ranges:
            self._add_shed(row["camera"], row["reason"], row["last"] - row["first"] + 1)

    def quarantined(self, rows: Sequence[Row]) -> None:
        """Count quarantined frames."""
        for row in rows:
            self._add_quarantined(row["camera"], row["cause"], 1)

    def refused(self, refused: Sequence[Refused]) -> None:
        """Count records that went to a dead-letter topic."""
        for one in refused:
            self._metrics.add(DEAD_LETTERS_TOTAL, topic=one.record.topic, cause=one.error.cause)

    def of_cameras(self, cameras: Collection[str]) -> dict[str, dict[str, int]]:
        """Return the counts of these cameras: captured, judged, anomalous, quarantined, shed."""
        with self._lock:
            return {camera: dict(self._cameras.get(camera, {})) for camera in cameras}

    def _add_inspections(
        self, project: str, camera: str, version: str, is_anomalous: Any, role: str, *, count: int
    ) -> None:
        verdict = "anomaly" if is_anomalous else "normal"
        labels = {"project": project, "model_version": version, "verdict": verdict}
        self._metrics.add(INSPECTIONS_TOTAL, count, camera=self._label(camera), **labels)
        if role in COUNTING_ROLES:  # the others look at frames that are counted already
            self._count(camera, judged=count, anomalous=count if is_anomalous else 0)

    def _add_captured(self, camera: str, count: int) -> None:
        self._metrics.add(CAPTURED_TOTAL, count, camera=self._label(camera))
        self._count(camera, captured=count)

    def _add_quarantined(self, camera: str, cause: str, count: int) -> None:
        self._metrics.add(QUARANTINED_TOTAL, count, camera=self._label(camera), cause=cause)
        self._count(camera, quarantined=count)

    def _add_shed(self, camera: str, reason: str, count: int) -> None:
        self._metrics.add(SHED_TOTAL, count, camera=self._label(camera), reason=reason)
        self._count(camera, shed=count)

    def _count(self, camera: str, **counts: int) -> None:
        with self._lock:
            if camera in self._cameras or len(self._cameras) < _MOST_COUNTED:
                self._cameras[camera].update(counts)

    def _label(self, camera: str) -> str:
        with self._lock:
            return self._labels.of(camera)


def _frames_of(table: Table) -> ColumnElement[Any]:
    """Return how many frames a table's ranges stand for."""
    return func.sum(table.c.last - table.c.first + 1)
