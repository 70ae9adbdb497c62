"""Cameras against the training photos: gauges, and the same from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from services.adapters.database import migrate, open_engine, writing
from services.adapters.database.tables import inspections
from services.adapters.metrics import Metrics
from services.domain.inspection import Inspection, Role
from services.results.drift import LEAST_FRAMES, CameraDrift, DriftWatch, drift_of_cameras
from services.results.rows import inspection_of, inspection_row

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)


def judged(number: int, picture: Mapping[str, float], **changes: object) -> Inspection:
    when = AT + timedelta(seconds=number)
    one = Inspection(
        frame_id=uuid4(),
        camera="belt",
        project="caps",
        model_version="v1",
        captured_at=when,
        judged_at=when,
        is_anomalous=False,
        confidence=0.9,
        score=0.1,
        threshold=1.0,
        picture=picture,
    )
    return replace(one, **changes)  # type: ignore[arg-type]  # any field


def gauge(metrics: Metrics, what: str) -> float | None:
    labels = {"camera": "belt", "project": "caps", "what": what}
    return metrics.registry.get_sample_value("loupe_picture_drift", labels)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    url = f"sqlite:///{tmp_path}/loupe.db"
    migrate(url)
    return open_engine(url)


def store(engine: Engine, *found: Inspection) -> None:
    rows = [inspection_row(one, produced_at=one.judged_at, stored_at=one.judged_at) for one in found]
    with writing(engine) as connection:
        connection.execute(inspections.insert(), rows)


def test_a_few_defects_move_no_gauge_and_dim_light_does() -> None:
    metrics = Metrics()
    watch = DriftWatch(metrics)
    watch.judged([("belt", judged(n, {"exposure": 0.1})) for n in range(LEAST_FRAMES - 1)])
    assert gauge(metrics, "exposure") is None  # too few to tell
    watch.judged([("belt", judged(30 + n, {"exposure": -40.0}, is_anomalous=True)) for n in range(5)])
    assert gauge(metrics, "exposure") == 0.1
    watch.judged([("belt", judged(60 + n, {"exposure": -3.0}, is_anomalous=True)) for n in range(200)])
    assert gauge(metrics, "exposure") == -3.0


def test_a_new_version_begins_anew_and_shadows_do_not_count() -> None:
    metrics = Metrics()
    watch = DriftWatch(metrics)
    watch.judged([("belt", judged(n, {"focus": -5.0})) for n in range(LEAST_FRAMES)])
    shadows = [("belt", judged(n, {"focus": 9.0}, role=Role.SHADOW)) for n in range(99)]
    watch.judged([*shadows, *(("belt", judged(n, {"focus": 0.0}, model_version="v2")) for n in range(5))])
    assert gauge(metrics, "focus") == -5.0  # five frames of the new version say nothing yet
    watch.judged([("belt", judged(n, {"focus": 0.0}, model_version="v2")) for n in range(LEAST_FRAMES)])
    assert gauge(metrics, "focus") == 0.0


def test_the_database_tells_the_same(engine: Engine) -> None:
    old = [judged(n, {"exposure": 9.0}, model_version="v0") for n in range(3)]
    new = [judged(10 + n, {"exposure": -2.0 - n / 10, "focus": 0.5}) for n in range(5)]
    elsewhere = judged(40, {}, camera="other")
    store(engine, *old, *new, elsewhere)
    (found,) = drift_of_cameras(engine)  # the other camera's version has no reference
    places = {"exposure": -2.0 - 2 / 10, "focus": 0.5}
    assert found == CameraDrift("belt", "caps", "v1", 5, AT + timedelta(seconds=10), places)
    assert found.drifted == ("exposure",)
    assert drift_of_cameras(engine, "nobody") == ()


def test_a_row_gives_the_picture_back(engine: Engine) -> None:
    one = judged(0, {"exposure": 0.25})
    assert inspection_of(inspection_row(one, produced_at=AT, stored_at=AT)).picture == {"exposure": 0.25}
