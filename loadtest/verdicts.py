"""What the stack stored of a load: how many verdicts, how fast, where the time went. Reads only."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select

from services.adapters.database import reading
from services.adapters.database.tables import inspections, ledger_shed, ledger_shed_ranges
from services.domain.inspection import STAGES

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Quantiles:
    """Mean and quantiles of something, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float] | NDArray[Any]) -> Quantiles:
        """Return those of at least one value."""
        p50, p95, p99 = np.percentile(values_ms, [50, 95, 99])
        return cls(float(np.mean(values_ms)), float(p50), float(p95), float(p99))


class Verdicts:
    """The stored inspections of some ingester runs."""

    def __init__(self, engine: Engine, epochs: Sequence[str]) -> None:
        """Look at frames of these epochs."""
        self._engine = engine
        self._mine = inspections.c.epoch.in_(list(epochs))

    def count(self) -> int:
        """Return how many are stored."""
        with reading(self._engine) as connection:
            query = select(func.count()).select_from(inspections).where(self._mine)
            return int(connection.execute(query).scalar_one())

    def wait_for(self, frames: int, deadline_s: float) -> int:
        """Return how many are stored once `frames` are, or nothing new came for `deadline_s`."""
        found, since_s = self.count(), time.monotonic()
        while found < frames and time.monotonic() - since_s < deadline_s:
            time.sleep(_LOOK_EVERY_S)
            now = self.count()
            if now > found:
                found, since_s = now, time.monotonic()
        return found

    def shed(self, cameras: Sequence[str]) -> dict[str, int]:
        """Return how many frames of these cameras were declared shed, by reason."""
        ranges = ledger_shed_ranges.c
        kinds = (ledger_shed.c, func.count()), (ranges, func.sum(ranges.last - ranges.first + 1))
        found: Counter[str] = Counter()
        with reading(self._engine) as connection:
            for table, frames in kinds:
                mine = table.camera.in_(list(cameras))
                rows = connection.execute(select(table.reason, frames).where(mine).group_by(table.reason))
                for reason, count in rows:
                    found[reason] += int(count)
        return dict(found)

    def latency(self) -> Quantiles:
        """Return capture to stored verdict."""
        return Quantiles.of([row.latency_ms for row in self._rows(inspections.c.latency_ms)])

    def stages(self) -> dict[str, Quantiles]:
        """Return the time per stage, in the path's order, of stages that were recorded."""
        rows = [row.stage_ms for row in self._rows(inspections.c.stage_ms)]
        by_stage = {stage: [row[stage] for row in rows if stage in row] for stage in STAGES}
        return {stage: Quantiles.of(values) for stage, values in by_stage.items() if values}

    def steady_rate_fps(self) -> float:
        """Return stored verdicts per second while the stream was at work; see `steady_rate_fps`."""
        return steady_rate_fps([row.stored_at.timestamp() for row in self._rows(inspections.c.stored_at)])

    def _rows(self, *columns: Any) -> Sequence[Any]:
        with reading(self._engine) as connection:
            return connection.execute(select(*columns).where(self._mine)).all()


def steady_rate_fps(stored_s: Sequence[float]) -> float:
    """Return verdicts per second between the 15th and the 90th of a hundred.

    The first ones come while the backlog is still being published, the last ones while the lanes run
    empty. Rows of one transaction share their time, so whole batches are counted.

    Args:
        stored_s: when each verdict was stored, seconds, in any order.
    """
    times = sorted(stored_s)
    if not times:
        return 0.0
    start_s, end_s = times[int(len(times) * 0.15)], times[int(len(times) * 0.9)]
    counted = sum(start_s < one_s <= end_s for one_s in times)
    return counted / (end_s - start_s) if end_s > start_s else 0.0
