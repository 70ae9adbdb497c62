"""Reading a running demo: how many verdicts are stored, how fast, and what came out.

Reads the database only; what it shows is therefore what was really kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Engine, Row, case, func, select

from services.adapters.database.tables import inspections, quarantine


@dataclass(frozen=True, slots=True)
class CameraView:
    """One camera's stored verdicts so far; `last_*` are of the newest one."""

    judged: int = 0
    anomalous: int = 0
    quarantined: int = 0
    last_subject: str = ""
    last_is_anomalous: bool = False
    last_score: float = 0.0
    last_threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Capture to stored verdict in milliseconds; None before the first verdict."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Watcher:
    """Follows the frames of some ingester runs."""

    def __init__(self, engine: Engine, epochs: Callable[[], Sequence[str]], since: datetime) -> None:
        """Watch frames whose run is one of `epochs`, asked anew each time: cameras begin one by one.

        Quarantined frames have no epoch; those that failed after `since` (UTC) count.
        """
        self._engine = engine
        self._epochs = epochs
        self._since = since

    def cameras(self) -> dict[str, CameraView]:
        """Return what is stored, by camera."""
        counts = (
            select(
                inspections.c.camera,
                func.count(),
                func.sum(case((inspections.c.is_anomalous, 1), else_=0)),
                func.max(inspections.c.sequence),
            )
            .where(inspections.c.epoch.in_(self._epochs()))
            .group_by(inspections.c.camera)
        )
        with self._engine.connect() as connection:
            letters = select(quarantine.c.camera, func.count()).where(quarantine.c.failed_at >= self._since)
            by_camera = letters.group_by(quarantine.c.camera)
            quarantined = {camera: count for camera, count in connection.execute(by_camera)}  # noqa: C416
            found = {}
            for camera, judged, anomalous, last in connection.execute(counts):
                newest = connection.execute(
                    select(inspections)
                    .where(inspections.c.camera == camera, inspections.c.sequence == last)
                    .where(inspections.c.epoch.in_(self._epochs()))
                    .limit(1)
                ).one()
                found[camera] = CameraView(
                    judged,
                    int(anomalous or 0),
                    quarantined.get(camera, 0),
                    newest.subject,
                    newest.is_anomalous,
                    newest.score,
                    newest.threshold,
                )
            return found

    def latency(self) -> Latency:
        """Return quantiles over everything stored."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                select(inspections.c.latency_ms).where(inspections.c.epoch.in_(self._epochs()))
            )
            values = np.array([row[0] for row in rows])
        if not len(values):
            return Latency()
        p50, p95, p99 = (float(q) for q in np.percentile(values, [50, 95, 99]))
        return Latency(p50, p95, p99)

    def verdicts(self) -> Sequence[Row[Any]]:
        """Return all stored inspections, oldest first."""
        with self._engine.connect() as connection:
            return connection.execute(
                select(inspections)
                .where(inspections.c.epoch.in_(self._epochs()))
                .order_by(inspections.c.captured_at)
            ).all()
