"""Sources on real servers: a bucket on S3, triggers on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Event
from uuid import uuid4

import pytest

from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.adapters.object_store import ObjectStore, s3_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.camera import Camera, CameraState
from services.domain.errors import SourceUnavailable
from services.domain.topics import INLINE_LIMIT_BYTES, TRIGGERS
from services.domain.trigger import Trigger
from services.ingest.sources import Settled, Shot, Taken, TriggerFeed, Unreadable, open_camera
from services.wire.trigger import encode_trigger
from tests.poll import poll_until
from tests.servers import S3Access

ACCEPTED = Settled(uuid4())


@pytest.fixture
def store(s3_access: S3Access) -> ObjectStore:
    return s3_store(s3_access.endpoint, s3_access.key, s3_access.secret, s3_access.region)


def take(shots: Iterator[Taken | None], count: int) -> list[Taken]:
    """Return the next `count` pictures of a source, each settled at once."""
    end_s, taken = time.monotonic() + 30, list[Taken]()
    while len(taken) < count:
        assert time.monotonic() < end_s, f"{len(taken)} of {count}"
        one = next(shots)
        if one is not None:
            taken.append(one)
            if isinstance(one, Shot | Unreadable):
                one.on_settled(ACCEPTED)
    return taken


def test_a_bucket_is_emptied_into_done_and_goes_on(store: ObjectStore) -> None:
    prefix = f"s3://{FRAMES_BUCKET}/plant-{uuid4().hex[:6]}"
    large = b"\xff" * (INLINE_LIMIT_BYTES + 1)
    store.put(f"{prefix}/sub/L7_P1.jpg", b"1")
    store.put(f"{prefix}/large.tif", large)
    camera = Camera("cam-1", prefix, name_pattern=r"(?P<lot_id>L\d+)_(?P<part_id>P\d+)")
    shots = open_camera(camera, store=store).shots(Event())
    by_name = {shot.subject: shot for shot in take(shots, 2) if isinstance(shot, Shot)}
    assert (by_name["sub/L7_P1.jpg"].part_id, by_name["sub/L7_P1.jpg"].lot_id) == ("P1", "L7")
    assert by_name["large.tif"].image == large
    store.put(f"{prefix}/later.png", b"2")
    (later,) = take(shots, 1)
    assert isinstance(later, Shot)
    assert (later.subject, later.content_type) == ("later.png", "image/png")
    # What was settled moves away.
    poll_until(lambda: (next(shots), not store.exists(f"{prefix}/later.png"))[1], deadline_s=10)
    left = [uri.removeprefix(f"{prefix}/").split("/", 2) for uri in store.list(prefix)]
    assert sorted((into, name) for into, _, name in left) == [
        ("done", "large.tif"), ("done", "later.png"), ("done", "sub/L7_P1.jpg"),
    ]  # fmt: skip


def test_kept_objects_are_known_by_their_receipts_after_a_restart(store: ObjectStore) -> None:
    prefix = f"s3://{FRAMES_BUCKET}/plant-{uuid4().hex[:6]}"
    store.put(f"{prefix}/a.jpg", b"1")
    camera = Camera("cam-1", prefix, keeps_files=True)
    (first,) = take(open_camera(camera, store=store).shots(Event()), 1)
    assert isinstance(first, Shot)
    journal = {first.receipt: ACCEPTED}
    store.put(f"{prefix}/b.jpg", b"2")
    (second,) = take(open_camera(camera, store=store, captured_before=journal.get).shots(Event()), 1)
    assert isinstance(second, Shot)
    assert second.subject == "b.jpg"


def test_a_bucket_that_is_gone_and_wrong_keys_are_told_apart(s3_access: S3Access, store: ObjectStore) -> None:
    def state_of(uri: str, store: ObjectStore) -> str:
        with pytest.raises(SourceUnavailable) as told:
            next(open_camera(Camera("cam-1", uri), store=store).shots(Event()))
        assert s3_access.secret not in told.value.message
        return told.value.state

    wrong = s3_store(s3_access.endpoint, s3_access.key, "wrong", s3_access.region)
    away = s3_store("http://127.0.0.1:1", "key", "secret", "us-east-1")
    assert state_of("s3://no-such-bucket-here/x", store) == CameraState.SOURCE_GONE
    assert state_of(f"s3://{FRAMES_BUCKET}/x", wrong) == CameraState.UNAUTHORIZED
    assert state_of(f"s3://{FRAMES_BUCKET}/x", away) == CameraState.UNREACHABLE


def test_a_trigger_on_kafka_takes_a_picture(kafka_bootstrap: str) -> None:
    name = f"cam-{uuid4().hex[:6]}"
    group = f"loupe-triggers-{uuid4().hex[:6]}"
    feed = TriggerFeed(
        lambda: KafkaBrokerConsumer(
            kafka_bootstrap, topics=[TRIGGERS.name], group=group, auto_offset_reset="latest"
        ),
        SystemClock(),
    )
    producer = KafkaBrokerProducer(kafka_bootstrap)
    # One that was sent before anybody listened is not answered.
    producer.send(encode_trigger(Trigger(name, "too-early", datetime.now(UTC)))).result(10)
    camera = Camera(name, "synthetic:7", is_triggered=True)
    shots = open_camera(camera, feed=feed).shots(Event())
    sent = 0

    def answered() -> Shot | None:
        # The group takes a moment to form; until then triggers go unheard, as in a plant.
        nonlocal sent
        sent += 1
        producer.send(encode_trigger(Trigger(name, f"t-{sent}", datetime.now(UTC), "P7", "L3"))).result(10)
        found = next(shots)
        return found if isinstance(found, Shot) else None

    try:
        shot = poll_until(answered, deadline_s=30, what="an answer")
        assert shot is not None
        assert (shot.part_id, shot.lot_id) == ("P7", "L3")
        assert feed.counts.malformed == 0
    finally:
        feed.close()
        producer.close()
