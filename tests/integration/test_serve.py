"""Stream, unit and gateway on a real Ray head with real Kafka, Triton and S3: doors, health, versions."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import grpc
import numpy as np
import psutil
import pytest
from PIL import Image

from serve.stream import GROUP
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.object_store import ObjectStore, s3_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.frame import ImageReference
from services.domain.hosting import ArchivePolicy, Hosting, RetentionClass, Route
from services.domain.inspection import Inspection
from services.domain.topics import (
    CLAIM_LIMIT_BYTES,
    FRAMES,
    FRAMES_DLQ,
    INLINE_LIMIT_BYTES,
    INSPECTIONS,
    LEDGER,
)
from services.embedded.addresses import StackAddresses
from services.hosting.serve_api import RestServeApi
from services.hosting.serve_config import config_of
from services.wire.dead_letter import DeadLetter, decode_dead_letter
from services.wire.gen.loupe.v1 import frame_pb2, inspector_pb2, inspector_pb2_grpc
from services.wire.inspection import decode_inspection, from_message
from services.wire.ledger import decode_ledger_entry
from services.wire.record import Headers, OutRecord, Record
from tests.poll import poll_until
from tests.servers import S3Access, Servers, TritonAccess
from tests.unit.serve.models import picture, write_version

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

# Its own: the versions of other tests lie under other names in the same store.
PROJECT = "served-plates"
# Alone: Serve 5 s, a model 2 s, a healed stub 5 s; all of it on two cores that others use.
DEADLINE_S = 90.0


@dataclass
class Plant:
    """The cluster as its neighbours see it."""

    at: StackAddresses
    store: ObjectStore
    producer: KafkaBrokerProducer
    reader: KafkaTopicReader

    def host(self, version: str, *routes: Route) -> None:
        """Ask Serve for a version, as hosting does."""
        hosting = Hosting(PROJECT, version, f"s3://loupe-models/{PROJECT}/{version}")
        every = [Route("*", PROJECT, deadline_s=3600.0), *routes]
        RestServeApi(self.at.ray_dashboard_url, self.at.ray_token_path).put(config_of([hosting], every, 1))

    def publish(self, camera: str, images: Sequence[bytes]) -> None:
        """Publish images as anyone may."""
        sent = [
            self.producer.send(OutRecord(FRAMES.name, camera.encode(), image, (("ce_id", str(n).encode()),)))
            for n, image in enumerate(images)
        ]
        self.producer.flush(30)
        for one in sent:
            one.result(0)

    def records(self, topic: str) -> list[Record]:
        """Return all that is on a topic."""
        spans = self.reader.spans(topic)
        return [r for n, span in spans.items() for r in self.reader.records_at(topic, n, span)]

    def verdicts(self, camera: str) -> list[Inspection]:
        """Return a camera's verdicts in their order."""
        found = (decode_inspection(record.value) for record in self.records(INSPECTIONS.name))
        return [one for one in found if one.camera == camera]

    def letters(self, camera: str) -> list[DeadLetter]:
        """Return a camera's dead letters."""
        found = (decode_dead_letter(record) for record in self.records(FRAMES_DLQ.name))
        return [one for one in found if one.camera == camera]

    def wait_for(self, camera: str, count: int) -> list[Inspection]:
        """Return a camera's verdicts once there are so many."""
        return (
            poll_until(
                lambda: found if len(found := self.verdicts(camera)) >= count else None,
                deadline_s=DEADLINE_S,
                every_s=0.3,
                what=f"{count} verdicts of {camera}",
            )
            or []
        )

    def replica_pids(self) -> dict[str, int]:
        """Return pid by deployment."""
        api = RestServeApi(self.at.ray_dashboard_url, self.at.ray_token_path)
        return {
            name: replica["pid"]
            for application in api.details()["applications"].values()
            for name, deployment in application["deployments"].items()
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING"
        }


@pytest.fixture(scope="module")
def plant(
    servers: Servers,
    kafka_bootstrap: str,
    s3_access: S3Access,
    triton_access: TritonAccess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Plant]:
    """A cluster that hosts version v1; v2 is as good, v3 does not compute what it says."""
    store = s3_store(s3_access.endpoint, s3_access.key, s3_access.secret, s3_access.region)
    folder = tmp_path_factory.mktemp("versions")
    for version, lie in (("v1", 0.0), ("v2", 0.0), ("v3", 0.1)):
        store.upload_folder(
            write_version(folder, version, lie=lie, project=PROJECT), f"s3://loupe-models/{PROJECT}/{version}"
        )
    producer, reader = KafkaBrokerProducer(kafka_bootstrap), KafkaTopicReader(kafka_bootstrap)
    with servers.running("ray"):
        made = Plant(servers.addresses, store, producer, reader)
        made.host("v1")
        yield made
    producer.close()
    reader.close()


@pytest.fixture
def camera() -> str:
    return f"cam-{uuid4().hex[:8]}"


def test_every_kind_of_frame_ends_and_is_committed(plant: Plant, camera: str) -> None:
    values = [0, 51, 102, 255, 204]
    images = [picture(value) for value in values]
    # Not an image, empty, truncated; then a good one, so that the partition is seen to go on.
    plant.publish(camera, [*images, b"no image", b"", images[0][:40], picture(153)])
    found = plant.wait_for(camera, 6)
    assert [one.score for one in found] == pytest.approx([v / 25.5 for v in [*values, 153]], abs=1e-3)
    assert [one.is_anomalous for one in found] == [False, False, False, True, True, True]
    assert {one.model_version for one in found} == {"v1"}
    letters = poll_until(lambda: plant.letters(camera), deadline_s=DEADLINE_S)
    assert {letter.cause for letter in letters} == {"UnreadableImage"}
    assert [letter.original.value for letter in letters] == [b"no image", b"", images[0][:40]]
    spans = plant.reader.spans(FRAMES.name)
    poll_until(
        lambda: all(
            plant.reader.committed(FRAMES.name, GROUP).get(n, 0) == span.stop
            for n, span in spans.items()
            if len(span)
        ),
        deadline_s=DEADLINE_S,
        what="all offsets committed",
    )


def test_pixels_of_an_anomalous_frame_are_kept_under_their_hash(plant: Plant, camera: str) -> None:
    plant.publish(camera, [picture(240)])
    (found,) = plant.wait_for(camera, 1)
    assert found.image is not None
    assert plant.store.get_image(found.image) == picture(240)


def test_a_claim_check_is_redeemed(plant: Plant, camera: str) -> None:
    reference = plant.store.put_image(FRAMES_BUCKET, picture(255, side_px=700))
    plant.producer.send(OutRecord(FRAMES.name, camera.encode(), b"", claim_headers(reference))).result(30)
    (found,) = plant.wait_for(camera, 1)
    assert found.score == pytest.approx(10)
    assert (found.width_px, found.image) == (700, reference)


def claim_headers(reference: ImageReference) -> Headers:
    return (
        ("ce_dataref", reference.uri.encode()),
        ("ce_datarefsha256", reference.sha256.encode()),
        ("ce_datarefsize", str(reference.size_bytes).encode()),
    )


def test_an_image_of_nearly_a_hundred_megabytes_is_judged_by_claim_and_ten_inline(
    plant: Plant, camera: str
) -> None:
    def noise(width_px: int, height_px: int, image_format: str, **options: int) -> bytes:
        pixels = np.random.default_rng(1).integers(0, 256, (height_px, width_px, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, image_format, **options)
        return buffer.getvalue()

    inline, large = noise(2900, 2900, "JPEG", quality=95), noise(5000, 6900, "PNG", compress_level=0)
    assert 9_500_000 < len(inline) <= INLINE_LIMIT_BYTES
    assert 98_000_000 < len(large) <= CLAIM_LIMIT_BYTES
    reference = plant.store.put_image(FRAMES_BUCKET, large)
    plant.publish(f"{camera}-inline", [inline])
    record = OutRecord(FRAMES.name, camera.encode(), b"", claim_headers(reference))
    plant.producer.send(record).result(30)
    (small,), (found,) = plant.wait_for(f"{camera}-inline", 1), plant.wait_for(camera, 1)
    # The mean of even noise is half of the scale, which ends at 10.
    assert (small.score, found.score) == pytest.approx((5, 5), abs=0.02)
    assert (found.width_px, found.height_px) == (5000, 6900)


def test_a_changed_route_is_followed_by_the_living_stream(plant: Plant, camera: str) -> None:
    before = plant.replica_pids()
    plant.host("v1", Route(f"{camera}-*", PROJECT, archive=ArchivePolicy.ALL, retention=RetentionClass.LONG))
    count = 0

    def is_followed() -> bool:
        nonlocal count
        count += 1
        plant.publish(f"{camera}-{count}", [picture(10)])
        (found,) = plant.wait_for(f"{camera}-{count}", 1)
        return found.image is not None and found.retention == "long"

    poll_until(is_followed, deadline_s=DEADLINE_S, every_s=0.5, what="the new route")
    assert plant.replica_pids() == before


def test_a_frame_past_its_deadline_is_declared_shed(plant: Plant, camera: str) -> None:
    headers = (("ce_time", b"2020-01-01T00:00:00Z"),)
    plant.producer.send(OutRecord(FRAMES.name, camera.encode(), picture(1), headers)).result(30)
    entries = poll_until(
        lambda: [
            entry
            for record in plant.records(LEDGER.name)
            if (entry := decode_ledger_entry(record.value)).camera == camera
        ],
        deadline_s=DEADLINE_S,
    )
    assert [entry.reason for entry in entries] == ["deadline"]


def test_the_synchronous_door_says_the_same_and_listens_on_loopback_only(plant: Plant, camera: str) -> None:
    plant.publish(camera, [picture(77)])
    (by_kafka,) = plant.wait_for(camera, 1)
    with grpc.insecure_channel(plant.at.gateway_grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = inspector_pb2_grpc.InspectorStub(channel)
        request = inspector_pb2.InspectRequest(frame=frame_pb2.Frame(image=picture(77)))
        by_gateway = from_message(stub.Inspect(request, timeout=30, wait_for_ready=True).inspection)
        masked = inspector_pb2.InspectRequest(
            frame=frame_pb2.Frame(image=picture(255, side_px=90)), mask=True
        )
        with Image.open(io.BytesIO(stub.Inspect(masked, timeout=30).mask_png)) as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "RGB", (90, 90))
            assert (np.array(mask) != 255).any()
    assert by_gateway.score == pytest.approx(by_kafka.score, abs=1e-4)
    assert (by_gateway.project, by_gateway.model_version) == (PROJECT, "v1")
    port = int(plant.at.gateway_grpc.rsplit(":", 1)[1])
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port}
    # gRPC writes IPv4 addresses in their IPv6 form.
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


def test_a_killed_stub_is_healed_and_no_frame_is_lost(
    plant: Plant, camera: str, triton_access: TritonAccess
) -> None:
    plant.publish(camera, [picture(10)] * 20)
    plant.wait_for(camera, 20)
    tree = psutil.Process(triton_access.process_id).children(recursive=True)
    alive = [child for child in tree if child.status() != psutil.STATUS_ZOMBIE]
    (stub,) = [child for child in alive if any(f"{PROJECT}.v1" in word for word in child.cmdline())]
    stub.kill()
    killed_s = time.monotonic()
    plant.publish(f"{camera}-after", [picture(10)] * 40)
    found = plant.wait_for(f"{camera}-after", 40)
    assert len({one.frame_id for one in found}) == 40
    assert time.monotonic() - killed_s < DEADLINE_S
    assert plant.letters(f"{camera}-after") == []


def test_a_version_is_swapped_in_the_living_replica_and_a_broken_one_is_not(
    plant: Plant, camera: str
) -> None:
    before = plant.replica_pids()
    plant.host("v3")  # its golden scores are not what it computes
    plant.host("v2")
    deadline_s = time.monotonic() + DEADLINE_S
    versions: list[str] = []
    while "v2" not in versions and time.monotonic() < deadline_s:
        plant.publish(f"{camera}-{len(versions)}", [picture(10)])
        versions += [one.model_version for one in plant.wait_for(f"{camera}-{len(versions)}", 1)]
    assert set(versions) == {"v1", "v2"} or versions == ["v2"]
    assert plant.replica_pids() == before
    plant.host("v3")
    plant.publish(camera, [picture(10)] * 5)
    assert {one.model_version for one in plant.wait_for(camera, 5)} == {"v2"}
