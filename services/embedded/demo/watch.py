"""Reading a running demo: how many verdicts are stored, how fast, and what came out.

Reads the database only; what it shows is therefore what was really kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Engine, Row, Select, Table, case, func, select

from services.adapters.database import reading
from services.adapters.database.tables import inspections, ledger_shed, ledger_shed_ranges, quarantine
from services.domain.frame import ingester_frame_ids
from services.domain.ledger import CameraBalance, balance_of


@dataclass(frozen=True, slots=True)
class CameraView:
    """One camera's stored verdicts so far; `last_*` are of the newest one."""

    judged: int = 0
    anomalous: int = 0
    quarantined: int = 0
    last_subject: str = ""
    last_is_anomalous: bool = False
    last_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """Capture to stored verdict in milliseconds; None before the first verdict."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Runs(Protocol):
    """Ingester runs, as `Filming` knows them; asked anew each time, since cameras begin one by one."""

    @property
    def epochs(self) -> tuple[str, ...]:
        """Epochs of the runs."""

    def frame_ids(self) -> dict[str, set[UUID]]:
        """Return the ids of the frames captured so far, by camera."""


class Watcher:
    """Follows the frames of some ingester runs."""

    def __init__(self, engine: Engine, runs: Runs, since: datetime) -> None:
        """Watch frames of `runs`. Quarantined ones have no epoch; those that failed after `since` count."""
        self._engine = engine
        self._runs = runs
        self._since = since

    def balances(self) -> dict[str, CameraBalance]:
        """Return how the frames of these runs ended, by camera; a home remembers earlier runs, too."""
        captured = self._runs.frame_ids()
        with reading(self._engine) as connection:
            judged, quarantined, shed = (
                {UUID(row.frame_id) for row in connection.execute(_of_cameras(table, captured))}
                for table in (inspections, quarantine, ledger_shed)
            )
            declared_shed = {frame for camera in captured for frame in _declared_shed(connection, camera)}
        return {
            camera: balance_of(
                declared=ids,
                observed=frozenset(),
                judged=ids & judged,
                quarantined=ids & quarantined,
                shed=ids & (shed | declared_shed),
            )
            for camera, ids in captured.items()
        }

    def cameras(self) -> dict[str, CameraView]:
        """Return what is stored, by camera."""
        counts = (
            select(
                inspections.c.camera,
                func.count(),
                func.sum(case((inspections.c.is_anomalous, 1), else_=0)),
                func.max(inspections.c.sequence),
            )
            .where(inspections.c.epoch.in_(self._runs.epochs))
            .group_by(inspections.c.camera)
        )
        with reading(self._engine) as connection:
            letters = select(quarantine.c.camera, func.count()).where(quarantine.c.failed_at >= self._since)
            by_camera = letters.group_by(quarantine.c.camera)
            quarantined = {camera: count for camera, count in connection.execute(by_camera)}  # noqa: C416
            found = {}
            for camera, judged, anomalous, last in connection.execute(counts):
                newest = connection.execute(
                    select(inspections)
                    .where(inspections.c.camera == camera, inspections.c.sequence == last)
                    .where(inspections.c.epoch.in_(self._runs.epochs))
                    .limit(1)
                ).one()
                found[camera] = CameraView(
                    judged,
                    int(anomalous or 0),
                    quarantined.get(camera, 0),
                    newest.subject,
                    newest.is_anomalous,
                    newest.score,
                )
            return found

    def latency(self) -> Latency:
        """Return quantiles over everything stored."""
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(inspections.c.latency_ms).where(inspections.c.epoch.in_(self._runs.epochs))
            )
            values = np.array([row[0] for row in rows])
        if not len(values):
            return Latency()
        p50, p95, p99 = (float(q) for q in np.percentile(values, [50, 95, 99]))
        return Latency(p50, p95, p99)

    def verdicts(self) -> Sequence[Row[Any]]:
        """Return all stored inspections, oldest first."""
        with reading(self._engine) as connection:
            return connection.execute(
                select(inspections)
                .where(inspections.c.epoch.in_(self._runs.epochs))
                .order_by(inspections.c.captured_at)
            ).all()


def _declared_shed(connection: Connection, camera: str) -> set[UUID]:
    """Return the ids of the frames that the camera's ingesters declared shed."""
    of = ledger_shed_ranges.c
    rows = connection.execute(select(of.epoch, of.first, of.last).where(of.camera == camera))
    return {
        frame_id
        for epoch, first, last in rows
        for frame_id in ingester_frame_ids(camera, epoch, range(first, last + 1))
    }


def _of_cameras(table: Table, cameras: Collection[str]) -> Select[Any]:
    return select(table.c.frame_id).where(table.c.camera.in_(cameras))
