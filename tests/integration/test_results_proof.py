"""`loupe ledger --prove` and `loupe dlq redrive` on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import delete

from services.adapters.broker.reader import KafkaTopicReader, read_up_to
from services.adapters.database import writing
from services.adapters.database.tables import inspections
from services.adapters.object_store.store import FRAMES_BUCKET, s3_store
from services.domain.frame import Frame
from services.domain.topics import FRAMES
from services.wire.frame import decode_frame
from services.wire.ledger import encode_ledger_entry
from services.wire.record import OutRecord
from tests.integration.test_results import Cluster
from tests.poll import poll_until
from tests.servers import S3Access
from tests.unit.results.builders import letter, shed_range


@pytest.fixture
def camera() -> str:
    return f"cam-{uuid4().hex[:8]}"


@pytest.fixture(params=["sqlite", "postgres"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, kafka_bootstrap: str, redis_url: str
) -> Iterator[Cluster]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'loupe.db'}" if is_sqlite else request.getfixturevalue("postgres_url")
    made = Cluster(kafka_bootstrap, redis_url, url, tmp_path)
    yield made
    made.engine.dispose()


def loupe(cluster: Cluster, s3: S3Access, *words: str, code: int = 0) -> str:
    return cluster.loupe(*words, code=code, environment=s3_environment(s3))


def s3_environment(s3: S3Access) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "AWS_DEFAULT_REGION": s3.region,
    }


def records_of(cluster: Cluster, name: str) -> list[Frame]:
    """Return the frames of a camera as they stand in the topic."""
    reader = KafkaTopicReader(cluster.bootstrap)
    frames = [decode_frame(one) for one in read_up_to(reader, FRAMES.name, reader.spans(FRAMES.name))]
    reader.close()
    return [frame for frame in frames if frame.camera == name]


def test_the_proof_names_what_is_lost(cluster: Cluster, camera: str, s3_access: S3Access) -> None:
    store = s3_store(s3_access.endpoint, s3_access.key, s3_access.secret, s3_access.region)
    kept, gone = (store.put_image(FRAMES_BUCKET, f"{camera} {n}".encode()) for n in range(2))
    frames = cluster.film(camera, 6)
    with cluster.results():
        cluster.judge(frames[:3], image=kept)
        cluster.judge(frames[3:5], image=gone)
        cluster.send(letter(frames[5]), encode_ledger_entry(shed_range(6, 9, camera)))
        words = ("ledger", "--prove", "--verify-pixels", "--json", "--camera", camera)
        proved = json.loads(loupe(cluster, s3_access, *words, "--wait", "40"))
    assert proved["proved"] is True
    balance = proved["cameras"][camera]
    assert (balance["captured"], balance["judged"], balance["quarantined"], balance["shed"]) == (10, 5, 1, 4)
    assert proved["checks"]["verdicts"]["looked_at"] == 5
    assert proved["checks"]["pictures"]["looked_at"] == 2
    store.delete(gone.uri)
    with writing(cluster.engine) as connection:
        mine = (inspections.c.camera == camera) & (inspections.c.sequence == 1)
        connection.execute(delete(inspections).where(mine))
    found = json.loads(loupe(cluster, s3_access, *words, code=1))
    named = {(one["check"], one["finding"], one["frame_id"]) for one in found["findings"]}
    lost = str(frames[1].frame_id)
    assert {one for one in named if one[0] != "pictures"} == {
        ("equation", "missing", lost), ("verdicts", "judged but not stored", lost),
    }  # fmt: skip
    assert {finding for check, finding, _ in named if check == "pictures"} == {"picture missing"}
    assert "not proved" in loupe(cluster, s3_access, "ledger", "--prove", "--camera", camera, code=1)


def test_quarantined_frames_are_published_again_and_judged(
    cluster: Cluster,
    camera: str,
    s3_access: S3Access,
    tmp_path: Path,
) -> None:
    cluster.send(*[OutRecord(FRAMES.name, camera.encode(), f"pixels {n}".encode()) for n in range(3)])
    first = sorted(records_of(cluster, camera), key=lambda one: one.image)
    assert len(first) == 3

    def balance() -> dict[str, Any]:
        told = cluster.loupe("ledger", "--json", "--camera", camera, "--wait", "30")
        found: dict[str, Any] = json.loads(told)["cameras"][camera]
        return found

    with cluster.results():
        cluster.send(*map(letter, first))
        assert balance()["quarantined"] == 3
        groups = cluster.loupe("dlq", "list", "--camera", camera)
        assert "UnreadableImage" in groups
        cluster.loupe("dlq", "export", str(tmp_path / "bad"), "--camera", camera)
        exported = {p.read_bytes() for p in (tmp_path / "bad").glob("*.bin")}
        assert exported == {one.image for one in first}
        would = cluster.loupe("dlq", "redrive", "--all", "--camera", camera, "--dry-run")
        assert "3 would be published again" in would
        assert "3 published again" in cluster.loupe(
            "dlq", "redrive", "--all", "--camera", camera, "--project", "other"
        )
        poll_until(lambda: len(records_of(cluster, camera)) == 6, deadline_s=20)
        again = [one for one in records_of(cluster, camera) if one.project == "other"]
        assert sorted(str(one.frame_id) for one in again) == sorted(str(one.frame_id) for one in first)
        cluster.judge(again[:2])
        poll_until(lambda: cluster.stored(camera) == 2, deadline_s=30, what=cluster.log)
        poll_until(lambda: balance()["judged"] == 2, deadline_s=30)
        told = cluster.loupe("dlq", "redrive", "--all", "--camera", camera)
        assert "1 published again" in told
        assert "2 left out: judged already" in told
        cluster.judge([one for one in records_of(cluster, camera) if one.frame_id == again[2].frame_id][-1:])
        poll_until(lambda: balance()["quarantined"] == 0, deadline_s=30)
        assert balance()["captured"] == 3
        proved = json.loads(
            loupe(cluster, s3_access, "ledger", "--prove", "--json", "--camera", camera, "--wait", "40")
        )
        # A frame that was published again stands at two or three places, and is one.
        assert proved["proved"]
