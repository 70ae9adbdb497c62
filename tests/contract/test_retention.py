"""Retention's queries on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select

from services.adapters.clock import FakeClock
from services.adapters.database import reading
from services.adapters.database.tables import inspections
from services.adapters.object_store import memory_store, s3_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.results.batch import Read
from services.results.retention import ORPHAN_GRACE_S, Amount, Retention
from services.results.store import Store
from tests.servers import S3Access
from tests.unit.results.builders import frame, verdict, verdict_records


def test_more_rows_than_a_step_expire_in_order_and_once(engine: Engine) -> None:
    store, clock = memory_store(), FakeClock(datetime.now(UTC))
    shared = store.put_image(FRAMES_BUCKET, b"shared")
    told = [
        verdict(
            frame(n),
            image=store.put_image(FRAMES_BUCKET, b"%d" % n) if n % 2 else shared,
            retention="short" if n < 1200 else "long",
        )
        for n in range(1300)
    ]
    batch = [Read(one, record) for one, record in zip(told, verdict_records(*told), strict=True)]
    Store(engine, clock).add_inspections(batch)
    clock.advance(8 * 86400)
    dry = Retention(engine, store, clock, is_dry=True)
    retention = Retention(engine, store, clock)
    sizes = sum(len(str(n)) for n in range(1, 1200, 2))
    assert dry.expire() == retention.expire() == Amount(1200, 600, sizes)
    with reading(engine) as connection:
        left = select(func.count()).where(inspections.c.image_deleted_at.is_(None))
        assert connection.execute(left).scalar() == 100
    assert len(store.list(f"s3://{FRAMES_BUCKET}")) == 51
    clock.advance(86400)
    assert retention.sweep_orphans() == Amount()


@pytest.mark.real
def test_orphans_are_found_on_a_real_s3(s3_access: S3Access, engine: Engine) -> None:
    store = s3_store(s3_access.endpoint, s3_access.key, s3_access.secret, s3_access.region)
    reference = store.put_image(FRAMES_BUCKET, uuid4().bytes)
    # Dry: the bucket is shared with other tests, whose images nobody here refers to.
    clock = FakeClock(datetime.now(UTC))
    retention = Retention(engine, store, clock, is_dry=True)
    prefix = [reference.sha256[:2]]
    assert retention.sweep_orphans(prefix) == Amount()
    clock.advance(ORPHAN_GRACE_S + 60)
    found = retention.sweep_orphans(prefix)
    assert found.images >= 1
    assert found.size_bytes >= 16
    assert store.exists(reference.uri)
    assert retention._delete(reference.sha256, clock.now()) == 16
    store.delete(reference.uri)
    assert retention._delete(reference.sha256, clock.now()) is None
