"""Labels on Kafka become a dataset, a request becomes a version, and the line serves it without a stop.

Last in the alphabet of this folder: afterwards the project is served by a model of few photos.
"""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from sqlalchemy import select

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.database import reading
from services.adapters.database.tables import dataset_entries, training_jobs
from services.adapters.object_store import s3_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.wire.record import OutRecord
from tests.e2e.line import Line, loupe, wait_until_hosted
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

PHOTOS = 12


def publish_json(line: Line, topic: str, *documents: dict[str, object]) -> None:
    """Publish as a person with a shell does: JSON, no headers, no key."""
    producer = KafkaBrokerProducer(line.addresses.kafka_bootstrap)
    sent = [producer.send(OutRecord(topic, None, json.dumps(one).encode())) for one in documents]
    for delivery in sent:
        delivery.result(30)
    producer.close()


def test_labels_and_a_request_on_kafka_become_a_served_version(line: Line) -> None:
    at = line.addresses
    store = s3_store(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region)
    photos = [path.read_bytes() for path in sorted((line.photos / "normal").iterdir())[:PHOTOS]]
    references = [store.put_image(FRAMES_BUCKET, photo) for photo in photos]
    before = wait_until_hosted(line.engine, line.project)
    labels: list[dict[str, object]] = [
        {
            "project": line.project,
            "verdict": "normal",
            "author": "ann",
            "image": {"uri": one.uri, "sha256": one.sha256, "sizeBytes": str(one.size_bytes)},
        }
        for one in references
    ]
    # Said twice, as a client does that never saw the acknowledgement.
    publish_json(line, "loupe.labels", *labels, *labels)

    def entries() -> int:
        query = select(dataset_entries).where(dataset_entries.c.project == line.project)
        with reading(line.engine) as connection:
            return len(connection.execute(query).all())

    poll_until(lambda: entries() == PHOTOS, deadline_s=60, what=f"{PHOTOS} labels are stored once each")
    training_id = uuid4().hex
    wish: dict[str, object] = {"project": line.project, "training_id": training_id}
    publish_json(line, "loupe.training", wish, wish)

    def version() -> str | None:
        with reading(line.engine) as connection:
            query = select(training_jobs).where(training_jobs.c.training_id == training_id)
            job = connection.execute(query).first()
        assert job is None or job.state != "failed", job
        return job.version if job else None

    made = poll_until(version, deadline_s=240, what="the request has led to a version")
    assert made != before
    wait_until_hosted(line.engine, line.project, version=made)
    camera = f"after-{uuid4().hex[:6]}"

    def newest_judges() -> bool:
        line.publish(camera, photos[0])
        seen = line.verdicts(camera)
        return bool(seen) and seen[-1].model_version == made

    poll_until(newest_judges, deadline_s=60, every_s=0.5, what="verdicts name the new version")
    assert entries() == PHOTOS

    # The data it saw is kept under its digest, and a person asks for the next version the short way.
    held = json.loads(loupe(line.home, "dataset", line.project, "--json"))
    assert (held["verdicts"], held["versions"][0]["model_versions"]) == ({"normal": PHOTOS}, [made])
    trained = json.loads(
        loupe(line.home, "train", line.project, "--family", "memory", "--wait", "--json", timeout_s=400)
    )
    assert (trained["state"], trained["project"]) == ("done", line.project)
    listed = json.loads(loupe(line.home, "train", "--list", line.project, "--json"))["trainings"]
    assert [one["training_id"] for one in listed] == [trained["training_id"], training_id]
    assert all(one["memory_bytes"] > 0 and one["done_ratio"] == 1 for one in listed)
